"""Downloads and folders of the owner are for pages of this app, whatever name its address has."""

import pytest
from streamlit.runtime.context import ContextProxy
from streamlit.testing.v1 import AppTest

from pages.parts import own_pictures, permission

HERE = ("localhost:8501", "127.0.0.1:8501", "[::1]:8501", "192.0.2.7", "")


@pytest.fixture
def called(monkeypatch, tmp_path):
    """``called(host)``: a browser has this name for the app, whose owner allowed everything."""
    monkeypatch.setenv(permission.ALLOWED, "1")
    monkeypatch.setenv(own_pictures.FOLDERS_VARIABLE, str(tmp_path))
    headers = {}
    monkeypatch.setattr(ContextProxy, "headers", headers)

    def call(host):
        headers.clear()
        headers.update({"Host": host} if host else {})

    return call


def allowed():
    return permission.may_download(), bool(own_pictures.allowed_folders())


@pytest.mark.parametrize("host", HERE)
def test_pages_of_this_machine(called, host):
    called(host)
    assert allowed() == (True, True)


@pytest.mark.parametrize("value", ["0", "no", "false", ""])
def test_only_1_allows_downloads(called, value, monkeypatch):
    """0 allowed them: visitors of an owner who had written it could fill the disk."""
    called("localhost")
    monkeypatch.setenv(permission.ALLOWED, value)
    assert not permission.may_download()


@pytest.mark.parametrize("host", ["evil.example:8501", "localhost.evil.example", "127.0.0.1.x.org"])
def test_a_page_that_gives_its_own_name_our_address(called, host, monkeypatch):
    """DNS rebinding: it is taken for a page of the app, and the browser sends its name as Host."""
    called(host)
    assert allowed() == (False, False)
    app = AppTest.from_string("from pages.parts.permission import *; command_instead('x')").run()
    name = host.partition(":")[0]
    assert f"`--server.allowedHosts {name}`" in app.info[0].value

    with monkeypatch.context() as asked:
        asked.setenv("RETRIEVAL_PASSPHRASE", "words")
        assert allowed() == (True, True)
    # Streamlit itself refuses other names then.
    monkeypatch.setattr(permission.st, "get_option", lambda name: [host])
    assert allowed() == (True, True)
