"""What only the owner of the app may allow: downloads to its machine, and folders of it."""

from __future__ import annotations

import os

import streamlit as st

from pages.parts import entrance
from retrieval import hosts

ALLOWED = "RETRIEVAL_ALLOW_DOWNLOADS"


def may_download() -> bool:
    """Whether the owner lets visitors download to this machine, and this page is one of ours."""
    return os.environ.get(ALLOWED) == "1" and not unknown_name()


def unknown_name() -> str:
    """The host name of this request, where it may be that of another site; '' where it is ours.

    A web page can give its own name the address of this machine, and so reach the app from a
    browser here (DNS rebinding). It cannot where the owner asks for a passphrase, or lists the
    names of the app for Streamlit.
    """
    host = st.context.headers.get("Host", "localhost")  # every browser sends one
    known = os.environ.get(entrance.PASSPHRASE) or st.get_option("server.allowedHosts")
    return "" if known or hosts.is_ours(host) else host


def how_to_be_known(host: str) -> str:
    """The end of a sentence for the owner whose app is not known under this name."""
    name = host.partition(":")[0]
    return (
        f"this app is not known as `{name}`: open it as `localhost`, or start it with "
        f"`--server.allowedHosts {name}` or with a passphrase."
    )


def command_instead(command: str) -> None:
    """In the place of a button: the command for the owner, and how to have the button."""
    host = unknown_name() if os.environ.get(ALLOWED) == "1" else ""
    st.info(
        f"There is no button here, because {how_to_be_known(host)}"
        if host
        else "The owner of this app downloads with a command on the machine that the app runs on. "
        f"To have a button here instead, start the app with `{ALLOWED}=1`."
    )
    st.code(command, language=None)
