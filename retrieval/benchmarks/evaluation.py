"""``bench evaluation``: the scores of a benchmark of Oxford's size, against a plain loop."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from retrieval.collections.ground_truth import GroundTruth, Query
from retrieval.evaluation import PROTOCOLS, evaluate


def run() -> None:
    """The command: print the times."""
    measured = measure()
    print(
        f"70 queries x 4993 pictures, 3 protocols: evaluate {1000 * measured['evaluate']:.0f} ms "
        f"(all measures), plain loop {1000 * measured['loop']:.0f} ms (AP only), "
        f"largest difference of an AP {measured['difference']:.1e}"
    )


def measure(pictures: int = 4993, queries: int = 70, seed: int = 0) -> dict[str, float]:
    """Time the evaluation against a plain loop, on random rankings of the size of ROxford5k.

    Returns seconds for 'evaluate' (three protocols, all measures, best of three) and for 'loop'
    (three protocols, AP only), and 'difference', the largest between their APs.
    """
    random = np.random.default_rng(seed)
    ranks = np.argsort(random.random((pictures, queries)), axis=0)
    kinds = ("easy", "hard", "junk")
    labelled = []
    for number in range(queries):
        chosen = np.split(
            random.permutation(pictures)[: pictures // 20], [pictures // 60, pictures // 30]
        )
        labels = {kind: np.sort(part) for kind, part in zip(kinds, chosen, strict=True)}
        labelled.append(Query(str(number), labels=labels))
    truth = GroundTruth(tuple(map(str, range(pictures))), tuple(labelled))

    times = []
    for _ in range(3):
        started = time.perf_counter()
        scores = evaluate(ranks, truth)
        times.append(time.perf_counter() - started)
    started = time.perf_counter()
    differences = []
    for column, query in enumerate(labelled):
        ranking = ranks[:, column].tolist()
        for protocol, vectorised in scores.items():
            sets = (
                {i for kind in group for i in query.labels[kind].tolist()}
                for group in PROTOCOLS[protocol]
            )
            ap = average_precision_by_loop(ranking, *sets)
            differences.append(abs(ap - vectorised.aps[column]))
    return {
        "evaluate": min(times),
        "loop": time.perf_counter() - started,
        "difference": float(max(differences)),
    }


def average_precision_by_loop(
    ranking: Sequence[int], positives: set[int], ignored: set[int]
) -> float:
    """AP of one ranking by a plain loop, to test and time ``evaluate`` against."""
    if not positives:
        return float("nan")
    rank = found = 0
    area = 0.0
    for position in ranking:
        if position in positives:
            before = found / rank if rank else 1.0
            found += 1
            after = found / (rank + 1)
            area += (before + after) / 2 / len(positives)
        if position in positives or position not in ignored:
            rank += 1
    return area
