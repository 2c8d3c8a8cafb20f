"""The evaluation page without a browser, and rankings of eight pictures, for several test files."""

import io
from pathlib import Path

import numpy as np
from streamlit.testing.v1 import AppTest
from stubs import Registered

ROOT = Path(__file__).parents[2]
NAMES = tuple(f"{n}.png" for n in range(8))
QUERIES = [
    {"image": "q0.png", "landmark": "red_tower", "bbox": [0, 0, 20, 30],
     "easy": ["0.png", "1.png"], "hard": ["2.png"], "junk": ["3.png"]},
    {"image": "q1.png", "landmark": "blue_gate", "bbox": None,
     "easy": ["4.png"], "hard": [], "junk": []},
    {"image": "q2.png", "landmark": "blue_gate", "bbox": None,
     "easy": ["5.png"], "hard": ["6.png"], "junk": ["4.png"]},
]  # fmt: skip
RANKS = {
    "sir": np.array(
        [[3, 0, 7, 1, 6, 2, 5, 4], [4, 0, 1, 2, 3, 5, 6, 7], [0, 6, 4, 5, 1, 2, 3, 7]]
    ).T,
    "cnn-irwnha": np.array(
        [[0, 3, 1, 2, 4, 5, 6, 7], [0, 4, 1, 2, 3, 5, 6, 7], [5, 6, 0, 1, 2, 3, 4, 7]]
    ).T,
}


class Grey(Registered):
    """Says how bright a picture is."""

    def describe(self, picture, box=None):
        vector = np.asarray(picture.resize((2, 2)), np.float32).ravel() + 1
        return vector / np.linalg.norm(vector)


def start(**link):
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    app.switch_page("pages/evaluation.py")
    for name, value in link.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception, app.exception
    return app


def table(app, column):
    """The first table that has this column."""
    return next(one.value for one in app.dataframe if column in one.value.columns)


def text(app):
    kinds = (app.markdown, app.caption, app.info, app.warning, app.error)
    return "\n".join(one.value for kind in kinds for one in kind)


def upload(app, **arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    app.file_uploader(key="eval-upload").upload("mine.npz", file.getvalue(), "application/zip")
    app.run()
    assert not app.exception
    return app
