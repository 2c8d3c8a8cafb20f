"""How long a file that was made to be downloaded is kept."""

from __future__ import annotations

import time

from streamlit.runtime.media_file_manager import MediaFileMetadata

KEPT = 60.0  # s in which a browser begins to fetch a file

mark = MediaFileMetadata.mark_for_delete


def keep_a_while() -> None:
    """Keep files until browsers had the time to fetch them.

    Streamlit deletes a file when two pages have ended since it was made, whoever's they are: while
    one tab asked for its page again and again, all downloads of others failed.
    """
    setattr(MediaFileMetadata, "mark_for_delete", _mark)  # noqa: B010, mypy allows no assignment


def _mark(file: MediaFileMetadata) -> None:
    """Called whenever a page ends and no page shows the file."""
    now = time.monotonic()
    if now - vars(file).setdefault("unused_since", now) >= KEPT:
        mark(file)
