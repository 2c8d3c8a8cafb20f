"""What happens when the server starts, before anybody opens a page, and when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import streamlit as st
from streamlit import cli_util
from streamlit.web.server import server_util

from pages.parts import own_uploads


@asynccontextmanager
async def until_the_end(app: st.App) -> AsyncIterator[None]:
    """Open the app in the browser of this machine; at the end, delete what visitors brought.

    ``streamlit run`` opens the browser itself for apps that are only a script. It does not where
    the setting ``server.headless`` is on, as on a machine without a screen.
    """
    if not st.get_option("server.headless"):
        address = server_util.get_url(st.get_option("browser.serverAddress"))
        # A moment later, when the server answers.
        asyncio.get_running_loop().call_later(0.5, cli_util.open_browser, address)
    try:
        yield
    finally:
        # At a SIGTERM, as of Docker, Python ends before it deletes temporary folders.
        own_uploads.delete_all()
