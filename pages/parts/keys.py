"""Keys of widgets that are about one thing: a picture, a query and its box, a collection."""

from __future__ import annotations

import hashlib


def key_about(name: str, *about: object) -> str:
    """The key of a widget: a name, and a digest of what the widget is about.

    A browser that has not yet received this page sends clicks and values of the page before. With
    one key for both they would be taken for those of what this page shows; a key of its own brings
    them to the callback that the widget had. A digest, as keys are sent to browsers: a path would
    tell where the owner's pictures are.
    """
    return f"{name}-{hashlib.sha256(repr(about).encode()).hexdigest()[:16]}"
