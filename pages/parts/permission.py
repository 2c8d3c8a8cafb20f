"""What only the owner of the app may start: downloads to the machine that it runs on."""

from __future__ import annotations

import os

import streamlit as st

ALLOWED = "RETRIEVAL_ALLOW_DOWNLOADS"


def may_download() -> bool:
    """Whether the owner lets visitors download to this machine."""
    return bool(os.environ.get(ALLOWED))


def command_instead(command: str) -> None:
    """In the place of a button: the command for the owner, and how to have the button."""
    st.info(
        "The owner of this app downloads with a command on the machine that the app runs on. To "
        f"have a button here instead, start the app with `{ALLOWED}=1`."
    )
    st.code(command, language="sh")
