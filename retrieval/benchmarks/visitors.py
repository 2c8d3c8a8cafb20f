"""``bench visitors``: many visitors open the app at once, such as a class of students.

Each visitor is a session of its own: a websocket that speaks Streamlit's protocol as a browser
does, and fetches the pictures. Thirty browsers on two cores would slow down what they measure. All
visitors do the same step at the same time, which is the highest load that they can make.
"""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode

import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Element_pb2 import Element
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

PICTURES_ON_PAGE = 24  # to start a search from
STEP_TIMEOUT = 180.0  # s
SETTLING_TIME = 4.0  # s until the app has given freed memory back to the system
ORDER = ("sir", "cnn-irwnha", "delf")
ERROR_FORMAT = 1  # Alert.Format.ERROR_FORMAT
DIGEST = re.compile(r"-[0-9a-f]{16}$")  # of what a widget is about, see pages/parts/keys.py


@dataclass
class Visit:
    """What was measured during a visit.

    seconds: step → seconds of each visitor. processor: step → seconds of processor time of the app
    and of the visitors, who share its cores. errors: how often each occurred. before, peak, after:
    resident bytes of the app; None where they are unknown.
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
    visit = measure(count, rest)
    print(f"{'':28}{'p50':>8}{'p95':>8}{'slowest':>9}   processor time each: app, visitor")
    for step, seconds in visit.seconds.items():
        times = "".join(f"{percentile(seconds, share):8.2f}" for share in (50, 95))
        app, visitor = (spent / len(seconds) for spent in visit.processor[step])
        print(f"{step:28}{times}{max(seconds):9.2f}{app:25.3f}{visitor:9.3f}")
    print(f"errors: {visit.errors.total()}")
    for error, times_seen in visit.errors.most_common(5):
        print(f"  {times_seen} times: {error}")
    print(
        f"memory: {megabytes(visit.before)} before, {megabytes(visit.peak)} at the peak, "
        f"{megabytes(visit.after)} {rest:g} s after they left"
    )


def measure(count: int, rest: float, collection: str = "town") -> Visit:
    """Let ``count`` visitors use the app at once, and look at its memory ``rest`` seconds later.

    One visitor uses each method before, so that the networks are loaded.
    """
    visit = Visit()
    with serving(APP, "--server.port", "/_stcore/health") as served:
        asyncio.run(_visit_together(served, 1, collection, Visit()))
        time.sleep(SETTLING_TIME)
        visit.before = served.memory()
        with PeakMemory(served) as memory:
            asyncio.run(_visit_together(served, count, collection, visit))
        visit.peak = memory.bytes
        time.sleep(rest)
        visit.after = served.memory()
    return visit


async def _visit_together(served: Served, count: int, collection: str, visit: Visit) -> None:
    """Let ``count`` visitors go through all steps; times and errors are added to ``visit``."""
    together = asyncio.Barrier(count)
    visitors = (_visit(served, n, collection, together, visit) for n in range(count))
    await asyncio.gather(*visitors)


async def _visit(
    served: Served, number: int, collection: str, together: asyncio.Barrier, visit: Visit
) -> None:
    """Open the page, pick a query, change the method, draw a box, open a result."""
    address = f"{served.address.replace('http', 'ws')}/_stcore/stream"
    protocol = websockets.Subprotocol("streamlit")
    async with websockets.connect(address, subprotocols=[protocol], max_size=None) as socket:
        page = _Session(socket, served, {"collection": collection, "method": ORDER[0]})

        async def step(name: str, change: Callable[[], WidgetState | None]) -> None:
            await together.wait()
            spent_before = served.processor(), time.process_time()
            started = time.perf_counter()
            try:
                async with asyncio.timeout(STEP_TIMEOUT):
                    await page.run(change())
            except (RetrievalError, OSError, websockets.WebSocketException) as error:
                visit.errors[f"{name}: {type(error).__name__} {error}"] += 1
            else:
                visit.seconds.setdefault(name, []).append(time.perf_counter() - started)
            visit.errors.update(f"{name}: {error}" for error in page.errors)
            if await together.wait() == 0:
                visit.processor[name] = (
                    served.processor() - spent_before[0],
                    time.process_time() - spent_before[1],
                )

        first, second, third = ORDER
        await step("whole page", lambda: None)
        await step(
            f"answer, {_title(first)}",
            lambda: page.click(f"open-browse-{number % PICTURES_ON_PAGE}"),
        )
        await step(f"answer, {_title(second)}", lambda: page.choose("method", _title(second)))
        await step(f"box drawn, {_title(second)}", lambda: page.write("box", _box(number)))
        await step(f"answer, {_title(third)}", lambda: page.choose("method", _title(third)))
        await step("result opened", lambda: page.click(f"open-{third}-0"))


def _title(method: str) -> str:
    return methods.METHODS[method].title


def _box(number: int) -> str:
    """A box of each visitor's own, as text: an answer to the same query would be cached."""
    return f"{40 + number}, 30, {560 + number}, 440"


class _Session:
    """A session of the app: the widgets of its page, and the errors of the page's last run.

    link: the parameters of the page's address.
    """

    def __init__(self, socket: websockets.ClientConnection, served: Served, link: dict[str, str]):
        self.socket, self.served, self.link = socket, served, link
        self.widgets: dict[str, str] = {}  # key → id
        self.changed: dict[str, WidgetState] = {}  # what a browser remembers of them
        self.errors: list[str] = []
        self.page = ""
        self.fetched: set[str] = set()  # a browser keeps them

    async def run(self, change: WidgetState | None) -> None:
        """Run the page with a change to one widget, and fetch the pictures that it shows."""
        request = BackMsg()
        request.rerun_script.query_string = urlencode(self.link)
        request.rerun_script.page_script_hash = self.page
        if change is not None:
            request.rerun_script.widget_states.widgets.extend([*self.changed.values(), change])
            if not change.trigger_value:
                self.changed[change.id] = change
        await self.socket.send(request.SerializeToString())
        self.errors, pictures = [], []
        while True:
            message = ForwardMsg()
            data = await self.socket.recv()
            message.ParseFromString(data if isinstance(data, bytes) else data.encode())
            kind = message.WhichOneof("type")
            if kind == "new_session":
                self.page = message.new_session.page_script_hash
            elif kind == "delta" and message.delta.WhichOneof("type") == "new_element":
                pictures += self._read_element(message.delta.new_element)
            elif kind == "page_info_changed":
                self.link = dict(parse_qsl(message.page_info_changed.query_string))
            elif kind == "script_finished":
                if message.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY:
                    break
                if message.script_finished == ForwardMsg.FINISHED_WITH_COMPILE_ERROR:
                    self.errors.append("the page does not run")
                    break
        new = set(pictures) - self.fetched
        self.fetched |= new
        await asyncio.gather(*(asyncio.to_thread(self._fetch, picture) for picture in new))

    def _read_element(self, element: Element) -> list[str]:
        """Keep the widget or the error of an element; return the addresses of its pictures."""
        kind = element.WhichOneof("type")
        if kind in ("button", "button_group", "text_input"):
            identity = getattr(element, kind).id
            key = identity.split("-", 2)[-1]  # $$ID-hash-key
            self.widgets[DIGEST.sub("", key)] = identity
        elif kind == "exception":
            self.errors.append(element.exception.message or element.exception.type)
        elif kind == "alert" and element.alert.format == ERROR_FORMAT:
            self.errors.append(element.alert.body)
        return [image.url for image in element.imgs.imgs] if kind == "imgs" else []

    def _fetch(self, picture: str) -> None:
        with urllib.request.urlopen(self.served.address + picture, timeout=STEP_TIMEOUT) as answer:
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
