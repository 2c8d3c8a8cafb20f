"""Text of visitors in the log, which the owner may read in a terminal."""

import logging
from typing import Any

from retrieval.collections.credits import one_line

MAX_LENGTH, MAX_LINES = 2000, 200  # letters of a line, lines of a message


def write_plain_text() -> None:
    """Write messages without control characters, and indent each line that is not the first.

    Streamlit logs some of what a browser sends. It could hold commands for the terminal, as to set
    the clipboard, or lines that seem to be the app's own.
    """
    logging.setLogRecordFactory(_Record)


class _Record(logging.LogRecord):
    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        if self.exc_info and self.exc_info[1]:
            # It follows a message, so that its first line is indented too.
            self.exc_text = _plain("\n" + logging.Formatter().formatException(self.exc_info))[1:]

    def getMessage(self) -> str:
        return _plain(super().getMessage())


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
