"""Text of visitors in the log, which the owner may read in a terminal."""

import logging
import traceback
from collections import Counter
from typing import Any

from pages.parts.limits.allowances import OfClients
from retrieval.text import one_line

MAX_LENGTH, MAX_LINES = 2000, 200  # letters of a line, lines of a message
MAX_MESSAGES, MESSAGES_A_SECOND = 100, 1  # of one place in the code, at once and then
NOT_WRITTEN = -1  # a level below those of all handlers

allowances = OfClients(MAX_MESSAGES, MESSAGES_A_SECOND)
left_out: Counter[str] = Counter()  # messages of each place that were not written since its last


def write_plain_text() -> None:
    """Write messages without control characters, indent each line that is not the first, and leave
    out what comes too often.

    Streamlit logs some of what a browser sends. It could hold commands for the terminal, as to set
    the clipboard, or lines that seem to be the app's own. And one client could write 3 GB an hour:
    each connection with a wrong ``Origin`` is a line of 2000 letters.
    """
    logging.setLogRecordFactory(_Record)


class _Record(logging.LogRecord):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        place, self.note = f"{self.pathname}:{self.lineno}{_origin(self)}", ""
        if not allowances.take(place, 1):
            left_out[place] += 1
            self.levelno = NOT_WRITTEN
            return
        if count := left_out.pop(place, 0):
            self.note = f" (Left out since the last: {count:,} messages from the same place.)"
        if self.exc_info and self.exc_info[1]:
            # It follows a message, so that its first line is indented too.
            self.exc_text = _plain("\n" + logging.Formatter().formatException(self.exc_info))[1:]

    def getMessage(self) -> str:
        return _plain(super().getMessage()) + self.note


def _origin(record: logging.LogRecord) -> str:
    """Where the error of a message was raised: Streamlit logs errors of all pages in one place.

    Who makes one error again and again must not hide the others.
    """
    if not (record.exc_info and record.exc_info[2]):
        return ""
    *_, (frame, line) = traceback.walk_tb(record.exc_info[2])
    return f" {frame.f_code.co_filename}:{line}"


def _plain(text: str) -> str:
    """The text's lines, each without control characters and all but the first indented.

    Of many lines the first and the last: the last of a traceback says what the error is.
    """
    lines = text.split("\n")
    if len(lines) > MAX_LINES:
        lines[MAX_LINES // 2 : -MAX_LINES // 2] = []
    return "\n  ".join(_spaces(line) + one_line(line, MAX_LENGTH) for line in lines)


def _spaces(line: str) -> str:
    """Those that it begins with: they say where a line of a traceback belongs."""
    return " " * min(len(line) - len(line.lstrip(" ")), 20)
