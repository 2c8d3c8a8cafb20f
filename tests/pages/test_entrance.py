"""The passphrase: nothing of the app is seen before it is said."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from pages.parts import entrance

ROOT = Path(__file__).parents[2]
PAGES = ("app.py", *(f"pages/{name}.py" for name in ("search", "evaluation", "about", "networks")))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(entrance, "SECONDS_PER_TRY", 0.0)


def say(app, words):
    app.text_input[0].input(words)
    return app.button[0].click().run()


# A link may lead to any page, before app.py has run.
@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_seen_before(monkeypatch, page):
    monkeypatch.setenv(entrance.PASSPHRASE, "Öffne dich")
    app = AppTest.from_file(ROOT / "app.py", default_timeout=60)
    if page != "app.py":
        app.switch_page(page)
    app.run()
    for _ in range(2):
        assert not app.exception
        assert [one.value for one in app.title] == ["Image retrieval"]
        assert not app.selectbox
        app = say(app, "open")
        assert app.error[0].value == "This is not the passphrase."
        assert "through_app" not in app.session_state


def test_the_right_words_open_the_app_for_the_session(monkeypatch):
    monkeypatch.setenv(entrance.PASSPHRASE, "Öffne dich")
    app = say(AppTest.from_file(ROOT / "app.py", default_timeout=60).run(), "Öffne dich")
    assert not app.exception
    assert "# Search by example" in [one.value for one in app.markdown]
    app.switch_page("pages/evaluation.py").run()
    assert "# Evaluation" in [one.value for one in app.markdown]


def test_words_that_are_no_text(monkeypatch):
    """A passphrase in Latin-1, which no browser sends, was a traceback on the page."""
    monkeypatch.setenv(entrance.PASSPHRASE, "\udcd6ffne dich")
    app = say(AppTest.from_file(ROOT / "app.py", default_timeout=60).run(), "Öffne dich")
    assert not app.exception
    assert app.error[0].value == "This is not the passphrase."


@pytest.mark.parametrize("unset", [None, ""])
def test_without_one_nobody_is_asked(monkeypatch, unset):
    if unset is None:
        monkeypatch.delenv(entrance.PASSPHRASE, raising=False)
    else:
        monkeypatch.setenv(entrance.PASSPHRASE, unset)
    app = AppTest.from_file(ROOT / "app.py", default_timeout=60).run()
    assert "# Search by example" in [one.value for one in app.markdown]
