"""Text that somebody else made, such as a file name: shown as it is, and never as Markdown.

Markdown from outside could ask another host for a picture, or show a link that lies.
"""

from __future__ import annotations

import re


def plain(text: str) -> str:
    """The text with nothing in it that Markdown acts on, or that cannot be sent to a browser."""
    text = text.encode("utf-8", "replace").decode()
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)
