"""More connections than Streamlit expects: a few of them keep nobody out."""

from __future__ import annotations

import contextlib

from streamlit.runtime.memory_session_storage import MemorySessionStorage
from streamlit.runtime.session_manager import SessionInfo

MOST_OPEN = 65_536  # connections and files; where the system allows fewer, as many as it does
MOST_AWAY = 4096  # sessions that may come back, for the two minutes in which each of them may
save = MemorySessionStorage.save


def allow_many() -> None:
    """Let many connections be open, and many sessions be away.

    Streamlit waits for ever for the rest of a request, and by default a process may have 1024
    files: whoever began as many requests shut all others out. It keeps 128 sessions whose
    connection is broken: whoever opened and closed as many took from others, whose telephone
    slept, what they had brought.
    """
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on every system
        import resource

        now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = MOST_OPEN if most == resource.RLIM_INFINITY else min(most, MOST_OPEN)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(now, wanted), most))
    setattr(MemorySessionStorage, "save", _save)  # noqa: B010, mypy allows no assignment


def _save(storage: MemorySessionStorage, session: SessionInfo) -> None:
    # Streamlit has no setting for it; the test notices another name.
    setattr(storage._cache, "_maxsize", MOST_AWAY)  # noqa: B010
    save(storage, session)
