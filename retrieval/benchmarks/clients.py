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

TIMEOUT = 120.0  # s for an answer
COLLECTION = "town"


@dataclass
class Answers:
    """What the clients of one method measured.

    seconds: of each search. health: seconds of each call of /health. refused: answers 429 and 503.
    errors: how often each occurred. lasted: seconds of the whole. peak: bytes of the service.
    processor: seconds of processor time of the service and of the clients.
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
            answers = measure(served, checkpoint, count, seconds)
            times = "".join(f"{percentile(answers.seconds, share):8.2f}" for share in (50, 95, 99))
            searches = len(answers.seconds)
            print(
                f"{title:14}{searches / answers.lasted:9.1f}{times}{answers.refused:9}"
                f"{answers.errors.total():8}{max(answers.health, default=0):9.2f}"
                f"{megabytes(answers.peak):>13}"
                + "".join(f"{spent / max(1, searches):18.3f}" for spent in answers.processor),
                flush=True,
            )
            for error, times_seen in answers.errors.most_common(3):
                print(f"  {times_seen} times: {error}")


def _indexes(served: Served) -> list[tuple[str, str]]:
    """Checkpoint and title of the first index of each method.

    Each is searched once, so that its network is loaded. Raises RetrievalError without an index.
    """
    with urllib.request.urlopen(f"{served.address}/indexes", timeout=TIMEOUT) as answer:
        listed = [index for index in json.load(answer) if index["collection"] == COLLECTION]
    checkpoints = {index["method"]: index["id"].split("/")[1] for index in reversed(listed)}
    if not checkpoints:
        raise RetrievalError(f"There is no index of {COLLECTION}: python -m retrieval index town")
    picture = open_collection(COLLECTION).names[0]
    for checkpoint in checkpoints.values():
        address = _search_address(served, checkpoint, picture)
        urllib.request.urlopen(address, timeout=TIMEOUT).close()
    return [
        (checkpoints[name], method.title)
        for name, method in methods.METHODS.items()
        if name in checkpoints
    ]


def _search_address(served: Served, checkpoint: str, name: str) -> str:
    path = f"{served.address}/indexes/{COLLECTION}/{quote(checkpoint)}/search"
    return f"{path}?name={quote(name)}&top=10"


def measure(served: Served, checkpoint: str, count: int, seconds: float) -> Answers:
    """Let ``count`` clients search for so many seconds, each with other pictures of town."""
    names = open_collection(COLLECTION).names
    answers = Answers()
    started = time.perf_counter()
    end = started + seconds

    def client(number: int) -> None:
        step = 0
        while time.perf_counter() < end:
            address = _search_address(
                served, checkpoint, names[(number + step * count) % len(names)]
            )
            step += 1
            sent = time.perf_counter()
            try:
                with urllib.request.urlopen(address, timeout=TIMEOUT):
                    answers.seconds.append(time.perf_counter() - sent)
            except urllib.error.HTTPError as error:
                if error.code not in (429, 503):
                    answers.errors[f"{error.code} {error.reason}"] += 1
                    continue
                answers.refused += 1
                pause = float(error.headers.get("Retry-After") or 1)
                time.sleep(max(0, min(pause, end - time.perf_counter())))
            except OSError as error:
                answers.errors[str(error)] += 1

    def health() -> None:
        while time.perf_counter() < end:
            sent = time.perf_counter()
            try:
                urllib.request.urlopen(f"{served.address}/health", timeout=TIMEOUT).close()
                answers.health.append(time.perf_counter() - sent)
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
