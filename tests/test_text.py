"""Texts of others on one line."""

from retrieval.text import one_line


def test_one_line():
    assert one_line(" a\n\tb\u00a0c ") == "a b c"
    assert one_line("evil\u202egpj.exe\x1b[31m\u200b") == "evilgpj.exe[31m"
    assert one_line("Übermäßig 東京") == "Übermäßig 東京"
    assert one_line("x" * 500, 10) == "xxxxxxxxx…"
