"""Forms in odd character sets, read by Starlette as Streamlit has it do."""

import asyncio

from starlette import formparsers
from starlette.datastructures import Headers

from pages.parts import forms


def parse(charset):
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    body = '--x\r\nContent-Disposition: form-data; name="é"\r\n\r\nbcher-kva\r\n--x--\r\n'

    async def stream():
        yield body.encode()

    parser = formparsers.MultiPartParser(Headers({"Content-Type": kind}), stream())
    return dict(asyncio.run(parser.parse()))


def test_forms_are_read_as_utf8(monkeypatch):
    monkeypatch.setattr(formparsers, forms.NAME, getattr(formparsers, forms.NAME))  # undone later
    forms.read_as_utf8()
    for charset in ("punycode", "utf-8", "latin-1", "nothing"):
        assert parse(charset) == {"é": "bcher-kva"}
