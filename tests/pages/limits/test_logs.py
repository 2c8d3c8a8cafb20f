"""What the log shows of what visitors send."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from pages.parts.limits import logs
from pages.parts.limits.allowances import OfClients


@pytest.fixture
def written(monkeypatch, caplog):
    """The lines that a logger writes, as a terminal gets them."""
    before = logging.getLogRecordFactory()
    monkeypatch.setattr(logs, "allowances", OfClients(3, 0))
    logs.write_plain_text()
    logger = logging.getLogger("of a test")
    yield logger, lambda: caplog.handler.stream.getvalue().splitlines()
    logging.setLogRecordFactory(before)


def test_no_text_of_a_visitor_reaches_the_terminal_as_a_command(written):
    """A fragment of this name set the clipboard of whoever read the log."""
    logger, lines = written
    logger.warning("Fragment %s", "\x1b]52;c;cm0K\x07\x9b31m\nINFO Stopped")
    first, second = lines()
    assert first.endswith("Fragment ]52;c;cm0K31m")
    assert second == "  INFO Stopped"


def test_tracebacks_are_readable(written):
    logger, lines = written
    try:
        raise ValueError("\x1b[31m\nINFO Stopped")
    except ValueError:
        logger.exception("Uncaught")
    assert lines()[1] == "  Traceback (most recent call last):"
    assert lines()[2].startswith("    File ")
    assert lines()[-2:] == ["  ValueError: [31m", "  INFO Stopped"]


def test_long_tracebacks_say_what_the_error_is(written):
    """That of two functions that call each other has two thousand lines."""
    logger, lines = written

    def call(functions):
        functions[0](functions[::-1])

    try:
        call([call, lambda functions: functions[0](functions[::-1])])
    except RecursionError:
        logger.exception("Uncaught")
    assert lines()[1] == "  Traceback (most recent call last):"
    assert lines()[-1].startswith("  RecursionError: ")
    assert len(lines()) == logs.MAX_LINES


ERROR_OF_A_PAGE = """
from streamlit import error_util
from pages.parts.limits import logs
from pages.parts.limits.allowances import OfClients
logs.write_plain_text()
error_util.handle_uncaught_app_exception(ValueError("a.\\x1b]52;c;cm0K\\x07"))
"""


def test_errors_of_pages_are_written_like_all_others():
    """Streamlit printed them with rich. The suffix of an uploaded file could be a command."""
    root = Path(__file__).parents[3]
    ran = subprocess.run(
        [sys.executable, "-c", ERROR_OF_A_PAGE], cwd=root, capture_output=True, text=True
    )
    shown = ran.stdout + ran.stderr
    assert "  ValueError: a.]52;c;cm0K" in shown
    assert "\x1b" not in shown
    assert "\x07" not in shown


def test_messages_are_cut(written):
    logger, lines = written
    logger.warning("a" * 10**6)
    logger.warning("\n" * 10**6)
    assert len(lines()[0]) < 1.1 * logs.MAX_LENGTH
    assert len(lines()) == 1 + logs.MAX_LINES


def test_a_flood_of_messages_is_cut_and_others_are_written(written, monkeypatch):
    """Connections with a wrong Origin, of one client, wrote 3 GB an hour."""
    logger, lines = written

    def flood():
        for number in range(1000):
            logger.warning("Rejecting %s", number)

    flood()
    logger.warning("Another")
    assert [line[-3:] for line in lines()] == ["g 0", "g 1", "g 2", "her"]
    monkeypatch.setattr(logs, "allowances", OfClients(1, 0))
    flood()
    said = "Rejecting 0 (Left out since the last: 997 messages from the same place.)"
    assert lines()[-1].endswith(said)
    assert len(lines()) == 5


def test_one_error_again_and_again_hides_no_other(written):
    """Streamlit logs the errors of all pages in one place of its code."""
    logger, lines = written

    def fail(cause):
        try:
            cause()
        except (KeyError, ZeroDivisionError) as error:
            logger.error("Uncaught", exc_info=error)

    for _ in range(5):
        fail(lambda: {}["a widget of a forged message"])
    fail(lambda: 1 / 0)
    errors = [line.split()[0] for line in lines() if "Error" in line and "in <lambda>" not in line]
    assert errors == ["KeyError:"] * 3 + ["ZeroDivisionError:"]
