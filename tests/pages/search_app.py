"""The search page without a browser, and a method that needs no network, for several test files.

The method says how red, green and blue each quarter of a picture is: enough to know who wins.
"""

import io
import re
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from streamlit.testing.v1 import AppTest
from stubs import Registered

from retrieval.methods.places import Places

ROOT = Path(__file__).parents[2]
RED, GREEN, BLUE = (200, 30, 30), (30, 180, 40), (30, 40, 200)


class Colours(Registered):
    def places(self, picture, box=None):
        """Four places, the quarters of the picture, which sum to the descriptor."""
        vector = self.describe(picture, box)
        parts = np.zeros((2, 2, len(vector)), np.float32)
        for n in range(4):
            parts[n // 2, n % 2, 3 * n : 3 * n + 3] = vector[3 * n : 3 * n + 3]
        return Places(parts, box or (0, 0, *picture.size))

    def describe(self, picture, box=None):
        part = picture.crop([round(value) for value in box]) if box else picture
        vector = np.asarray(part.resize((2, 2), Image.Resampling.BOX), np.float32).ravel()
        return vector / np.linalg.norm(vector)


def picture(colour, right=None, size=(64, 48)):
    """A picture of one colour, or with its right half in another; a little cross in each quarter,
    as pictures of one colour are blank."""
    image = Image.new("RGB", size, colour)
    width, height = size
    if right:
        image.paste(right, (width // 2, 0, width, height))
    for x in (width // 4, 3 * width // 4):
        for y in (height // 4, 3 * height // 4):
            image.paste("black", (x - 3, y, x + 3, y + 1))
            image.paste("white", (x, y - 3, x + 1, y + 3))
    return image


def encoded(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def archive(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in files.items():
            out.writestr(name.replace("__", "/").replace("_png", ".png"), data)
    return buffer.getvalue()


def start(**link):
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    for name, value in link.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception, app.exception
    return app


def go(app):
    """Search with the first picture on offer; an upload is searched with by itself."""
    first = [one for one in app.button if (one.key or "").startswith("open-browse-0-")]
    if first:
        first[0].click().run()
    assert not app.exception, app.exception
    return app


def hits(app, method="cnn-irwnha"):
    """What the cards of an answer say to a screen reader, in order."""
    return [
        button.label.replace("\\", "")
        for button in app.button
        if button.key.startswith(f"open-{method}-")
    ]


def button(app, name):
    """The button of this name. Its key also tells what it is about, see ``key_about``."""
    (found,) = (one for one in app.button if re.fullmatch(f"{name}-[0-9a-f]{{16}}", one.key or ""))
    return found


def box_field(app):
    (field,) = (one for one in app.text_input if one.label.startswith("Box: "))
    return field


def text(app):
    return "\n".join(element.value for element in app.markdown)


def captions(app):
    return "".join(element.value for element in app.caption)


def bring(app, name, data, kind="application/zip"):
    """Upload a file of one's own, and index it."""
    app.file_uploader(key="own_files").upload(name, data, kind).run()
    app.button(key="own_index").click().run()
    assert not app.exception, app.exception
    return app
