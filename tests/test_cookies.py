"""Cookies with many escapes, which kept everybody waiting."""

import http.cookies

import pytest
from starlette.requests import cookie_parser

from retrieval import cookies, server

PYTHONS_OWN = http.cookies._unquote
VALUES = ["", '"', "a", '""', '"a"', r'"\""', r'"\101\\"', r'"\4\400\1"', '"\\"', r'"é \303\251"']


@pytest.mark.parametrize("value", VALUES)
def test_values_are_read_as_python_reads_them(value):
    assert cookies.unquote(value) == PYTHONS_OWN(value)


def test_the_service_reads_them_in_linear_time(monkeypatch):
    """60 kB of escapes took five seconds, and a megabyte takes a quarter of an hour."""
    monkeypatch.setattr(http.cookies, "_unquote", lambda text: "Python's own")
    server.create()
    assert cookie_parser('a="' + r"\101" * 250_000 + '"') == {"a": "A" * 250_000}
