"""``bench clients``: many clients at once at the REST service."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import quote

from retrieval import methods
from retrieval.benchmarks.served import (
    SERVICE,
    PeakMemory,
    Served,
    machine,
    megabytes,
    percentile,
    serving,
)
from retrieval.collections import open_collection
from retrieval.errors import RetrievalError

PATIENCE = 120.0  # s for one answer
COLLECTION = "town"


@dataclass
class Answers:
    """What the clients of one method saw. seconds: of each answer. refused: 429 and 503.

    processor: the processor time that all of it took in the service and in the clients.
    """

    seconds: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    refused: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    lasted: float = 0.0
    peak: int = 0
    processor: tuple[float, float] = (0.0, 0.0)


def run(count: int, seconds: float) -> None:
    """The command: ``count`` clients ask each method for so many seconds."""
    print(
        f"{count} clients for {seconds:g} s on each method, {machine()}; each asks again as soon "
        "as it is answered, or after the time that a refusal names; seconds"
    )
    print(
        f"{'':14}{'a second':>9}{'p50':>8}{'p95':>8}{'p99':>8}{'refused':>9}{'errors':>8}"
        f"{'/health':>9}  peak memory  processor time each: service, client"
    )
    with serving(SERVICE, "--port", "/health") as served:
        for checkpoint, title in _indexes(served):
            found = measure(served, checkpoint, count, seconds)
            times = "".join(f"{percentile(found.seconds, share):8.2f}" for share in (50, 95, 99))
            print(
                f"{title:14}{len(found.seconds) / found.lasted:9.1f}{times}{found.refused:9}"
                f"{found.errors.total():8}{max(found.health, default=0):9.2f}"
                f"{megabytes(found.peak):>13}"
                + "".join(
                    f"{taken / max(1, len(found.seconds)):18.3f}" for taken in found.processor
                ),
                flush=True,
            )
            for error, times_seen in found.errors.most_common(3):
                print(f"  {times_seen} times: {error}")


def _indexes(served: Served) -> list[tuple[str, str]]:
    """Checkpoint and title of the first index of each method; each is searched once before."""
    with urllib.request.urlopen(f"{served.address}/indexes", timeout=PATIENCE) as answer:
        listed = [one for one in json.load(answer) if one["collection"] == COLLECTION]
    found = {one["method"]: one["id"].split("/")[1] for one in reversed(listed)}
    if not found:
        raise RetrievalError(f"There is no index of {COLLECTION}: python -m retrieval index town")
    name = open_collection(COLLECTION).names[0]
    for checkpoint in found.values():
        urllib.request.urlopen(_question(served, checkpoint, name), timeout=PATIENCE).close()
    return [(found[name], entry.title) for name, entry in methods.METHODS.items() if name in found]


def _question(served: Served, checkpoint: str, name: str) -> str:
    path = f"{served.address}/indexes/{COLLECTION}/{quote(checkpoint)}/search"
    return f"{path}?name={quote(name)}&top=10"


def measure(served: Served, checkpoint: str, count: int, seconds: float) -> Answers:
    """Let ``count`` clients ask with the pictures of the collection, each with others."""
    names = open_collection(COLLECTION).names
    answers = Answers()
    started = time.perf_counter()
    over = started + seconds

    def client(number: int) -> None:
        step = 0
        while time.perf_counter() < over:
            name = names[(number + step * count) % len(names)]
            step += 1
            asked = time.perf_counter()
            try:
                with urllib.request.urlopen(_question(served, checkpoint, name), timeout=PATIENCE):
                    answers.seconds.append(time.perf_counter() - asked)
            except urllib.error.HTTPError as error:
                if error.code not in (429, 503):
                    answers.errors[f"{error.code} {error.reason}"] += 1
                    continue
                answers.refused += 1
                pause = float(error.headers.get("Retry-After") or 1)
                time.sleep(max(0, min(pause, over - time.perf_counter())))
            except OSError as error:
                answers.errors[str(error)] += 1

    def health() -> None:
        while time.perf_counter() < over:
            asked = time.perf_counter()
            try:
                urllib.request.urlopen(f"{served.address}/health", timeout=PATIENCE).close()
                answers.health.append(time.perf_counter() - asked)
            except OSError as error:
                answers.errors[f"/health: {error}"] += 1
            time.sleep(0.2)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(count)]
    threads.append(threading.Thread(target=health))
    before = served.processor(), time.process_time()
    with PeakMemory(served) as memory:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    answers.lasted = time.perf_counter() - started
    answers.peak = memory.bytes
    answers.processor = served.processor() - before[0], time.process_time() - before[1]
    return answers
