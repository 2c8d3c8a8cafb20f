"""What comes before every page: app.py, and a passphrase that the owner may ask for."""

from __future__ import annotations

import hmac
import os
import runpy
import time
from pathlib import Path

import streamlit as st

PASSPHRASE = "RETRIEVAL_PASSPHRASE"
SECONDS_PER_TRY = 1.0  # s that each try takes, so that nobody tries many


def run_app_first() -> None:
    """Run app.py first if Streamlit opened a page without it; every page begins with this call.

    Until app.py has run once, Streamlit takes a folder called ``pages`` for its older kind of
    app, and opens a link to a page without app.py.
    """
    if not st.session_state.get("through_app"):
        runpy.run_path(str(Path(__file__).parents[2] / "app.py"))
        st.stop()


def passed() -> bool:
    """Whether the visitor may see the app: the passphrase was entered, or there is none."""
    return not os.environ.get(PASSPHRASE) or bool(st.session_state.get("entered"))


def ask() -> None:
    """End the page here until the visitor has entered the passphrase, where the owner set one.

    It holds for one session: a tab until it is reloaded.
    """
    if passed():
        return
    st.title("Image retrieval", anchor=False)
    with st.form("entrance", width=420):
        entered = st.text_input("Passphrase", type="password")
        sent = st.form_submit_button("Enter", type="primary")
    if sent:
        time.sleep(SECONDS_PER_TRY)
        if hmac.compare_digest(entered.encode(), os.fsencode(os.environ[PASSPHRASE])):
            st.session_state["entered"] = True
            st.rerun()
        st.error("This is not the passphrase.", icon=":material/error:")
    st.stop()
