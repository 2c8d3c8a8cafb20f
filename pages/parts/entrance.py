"""A passphrase that the owner may ask every visitor for."""

from __future__ import annotations

import hmac
import os
import time

import streamlit as st

PASSPHRASE = "RETRIEVAL_PASSPHRASE"
SECONDS_PER_TRY = 1.0  # s that each try takes, so that nobody tries many


def passed() -> bool:
    """Whether the visitor may see the app: the passphrase was said, or there is none."""
    return not os.environ.get(PASSPHRASE) or bool(st.session_state.get("entered"))


def ask() -> None:
    """End the page here until the visitor has said the passphrase, where the owner set one.

    It holds for one session: a tab until it is reloaded.
    """
    if passed():
        return
    st.title("Image retrieval", anchor=False)
    with st.form("entrance", width=420):
        said = st.text_input("Passphrase", type="password")
        sent = st.form_submit_button("Enter", type="primary")
    if sent:
        time.sleep(SECONDS_PER_TRY)
        if hmac.compare_digest(said.encode(), os.environ[PASSPHRASE].encode()):
            st.session_state["entered"] = True
            st.rerun()
        st.error("This is not the passphrase.", icon=":material/error:")
    st.stop()
