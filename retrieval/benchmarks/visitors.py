"""``bench visitors``: a class opens the app at once.

Each visitor is a real session: a websocket that speaks Streamlit's protocol as the page in a
browser does, and fetches the pictures. (Thirty browsers would measure themselves on two cores.)
All of them do the same step at the same time, which is the worst that can happen.
"""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode

import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState

from retrieval import methods
from retrieval.benchmarks.served import (
    APP,
    PeakMemory,
    Served,
    machine,
    megabytes,
    percentile,
    serving,
)
from retrieval.errors import RetrievalError

ON_PAGE = 24  # pictures to start from that the page shows
PATIENCE = 180.0  # s for one step
SETTLED = 4.0  # s after which the app has given back what it can
ORDER = ("sir", "cnn-irwnha", "delf")
ERROR = 1  # Alert.Format.ERROR


@dataclass
class Visit:
    """What the visitors saw. seconds: of each, by step. Memory in bytes, None where unknown.

    processor: by step, the processor time that all of it took in the app and in the visitors: they
    share the cores, so the visitors slow down what they measure.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    processor: dict[str, tuple[float, float]] = field(default_factory=dict)
    errors: Counter[str] = field(default_factory=Counter)
    before: int | None = None
    peak: int = 0
    after: int | None = None


def run(count: int, rest: float) -> None:
    """The command: ``count`` visitors at once, and the memory ``rest`` seconds after they left."""
    print(f"{count} visitors at once, {machine()}; seconds until a step is done")
    found = measure(count, rest)
    print(f"{'':28}{'p50':>8}{'p95':>8}{'slowest':>9}   processor time each: app, visitor")
    for step, seconds in found.seconds.items():
        times = "".join(f"{percentile(seconds, share):8.2f}" for share in (50, 95))
        app, visitor = (taken / len(seconds) for taken in found.processor[step])
        print(f"{step:28}{times}{max(seconds):9.2f}{app:25.3f}{visitor:9.3f}")
    print(f"errors: {found.errors.total()}")
    for error, times_seen in found.errors.most_common(5):
        print(f"  {times_seen} times: {error}")
    print(
        f"memory: {megabytes(found.before)} before, {megabytes(found.peak)} at the peak, "
        f"{megabytes(found.after)} {rest:g} s after they left"
    )


def measure(count: int, rest: float, collection: str = "town") -> Visit:
    """One visitor asks each method once, so that the networks are loaded; then all come."""
    found = Visit()
    with serving(APP, "--server.port", "/_stcore/health") as served:
        asyncio.run(_all(served, 1, collection, Visit()))
        time.sleep(SETTLED)
        found.before = served.memory()
        with PeakMemory(served) as memory:
            asyncio.run(_all(served, count, collection, found))
        found.peak = memory.bytes
        time.sleep(rest)
        found.after = served.memory()
    return found


async def _all(served: Served, count: int, collection: str, found: Visit) -> None:
    together = asyncio.Barrier(count)
    visitors = (_visit(served, n, collection, together, found) for n in range(count))
    await asyncio.gather(*visitors)


async def _visit(
    served: Served, number: int, collection: str, together: asyncio.Barrier, found: Visit
) -> None:
    """Open the page, pick a query, change the method, draw a box, open a result."""
    address = f"{served.address.replace('http', 'ws')}/_stcore/stream"
    protocol = websockets.Subprotocol("streamlit")
    async with websockets.connect(address, subprotocols=[protocol], max_size=None) as socket:
        page = _Page(socket, served, {"collection": collection, "method": ORDER[0]})

        async def step(name: str, change: Callable[[], WidgetState | None]) -> None:
            await together.wait()
            taken = served.processor(), time.process_time()
            started = time.perf_counter()
            try:
                async with asyncio.timeout(PATIENCE):
                    await page.run(change())
            except (RetrievalError, OSError, websockets.WebSocketException) as error:
                found.errors[f"{name}: {type(error).__name__} {error}"] += 1
            else:
                found.seconds.setdefault(name, []).append(time.perf_counter() - started)
            found.errors.update(f"{name}: {error}" for error in page.errors)
            if await together.wait() == 0:
                found.processor[name] = (
                    served.processor() - taken[0],
                    time.process_time() - taken[1],
                )

        first, second, third = ORDER
        await step("whole page", lambda: None)
        await step(
            f"answer, {_title(first)}", lambda: page.click(f"open-browse-{number % ON_PAGE}")
        )
        await step(f"answer, {_title(second)}", lambda: page.choose("method", _title(second)))
        await step(f"box drawn, {_title(second)}", lambda: page.write("box", _box(number)))
        await step(f"answer, {_title(third)}", lambda: page.choose("method", _title(third)))
        await step("result opened", lambda: page.click(f"open-{third}-0"))


def _title(method: str) -> str:
    return methods.METHODS[method].title


def _box(number: int) -> str:
    """Everybody's own: the same question asked twice would cost nothing the second time."""
    return f"{40 + number}, 30, {560 + number}, 440"


class _Page:
    """One session: the widgets that are on the page, and what came with the last run of it."""

    def __init__(self, socket: websockets.ClientConnection, served: Served, link: dict[str, str]):
        self.socket, self.served, self.link = socket, served, link
        self.widgets: dict[str, str] = {}  # key → id
        self.changed: dict[str, WidgetState] = {}  # what a browser remembers of them
        self.errors: list[str] = []
        self.page = ""
        self.fetched: set[str] = set()  # a browser keeps them

    async def run(self, change: WidgetState | None) -> None:
        """Let the page run with a change to one widget, and fetch the pictures that it shows."""
        asked = BackMsg()
        asked.rerun_script.query_string = urlencode(self.link)
        asked.rerun_script.page_script_hash = self.page
        if change is not None:
            asked.rerun_script.widget_states.widgets.extend([*self.changed.values(), change])
            if not change.trigger_value:
                self.changed[change.id] = change
        await self.socket.send(asked.SerializeToString())
        self.errors, pictures = [], []
        while True:
            told = ForwardMsg()
            data = await self.socket.recv()
            told.ParseFromString(data if isinstance(data, bytes) else data.encode())
            kind = told.WhichOneof("type")
            if kind == "new_session":
                self.page = told.new_session.page_script_hash
            elif kind == "delta" and told.delta.WhichOneof("type") == "new_element":
                pictures += self._element(told.delta.new_element)
            elif kind == "page_info_changed":
                self.link = dict(parse_qsl(told.page_info_changed.query_string))
            elif kind == "script_finished":
                if told.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY:
                    break
                if told.script_finished == ForwardMsg.FINISHED_WITH_COMPILE_ERROR:
                    self.errors.append("the page does not run")
                    break
        new = set(pictures) - self.fetched
        self.fetched |= new
        await asyncio.gather(*(asyncio.to_thread(self._fetch, picture) for picture in new))

    def _element(self, element) -> list[str]:
        """Note a widget or an error; the addresses of pictures."""
        kind = element.WhichOneof("type")
        if kind in ("button", "button_group", "text_input"):
            identity = getattr(element, kind).id
            self.widgets[identity.split("-", 2)[-1]] = identity  # $$ID-hash-key
        elif kind == "exception":
            self.errors.append(element.exception.message or element.exception.type)
        elif kind == "alert" and element.alert.format == ERROR:
            self.errors.append(element.alert.body)
        return [one.url for one in element.imgs.imgs] if kind == "imgs" else []

    def _fetch(self, picture: str) -> None:
        with urllib.request.urlopen(self.served.address + picture, timeout=PATIENCE) as answer:
            answer.read()

    def click(self, key: str) -> WidgetState:
        return WidgetState(id=self._id(key), trigger_value=True)

    def choose(self, key: str, option: str) -> WidgetState:
        state = WidgetState(id=self._id(key))
        state.string_array_value.data.append(option)
        return state

    def write(self, key: str, text: str) -> WidgetState:
        return WidgetState(id=self._id(key), string_value=text)

    def _id(self, key: str) -> str:
        if key not in self.widgets:
            raise RetrievalError(f"The page has no {key}: " + "; ".join(self.errors))
        return self.widgets[key]
