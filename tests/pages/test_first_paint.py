"""The first paint of a page is quick: it imports no deep learning library."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VISIT = """
import sys
from streamlit.testing.v1 import AppTest
from pages.parts import loaders
loaders.PAINT_DELAY = 3600  # seconds until what comes after the paint
import retrieval.figures.local_features, retrieval.ranking.geometry  # of the keypoint page

heavy = {"torch", "torchvision", "tensorflow", "faiss", "cv2", "scipy", "matplotlib"}
app = AppTest.from_file("app.py", default_timeout=60).run()
assert not app.exception, app.exception
assert "# Search by example" in [one.value for one in app.markdown]
print(heavy & set(sys.modules))
app.switch_page("pages/evaluation.py").run()
assert not app.exception, app.exception
assert "# Evaluation" in [one.value for one in app.markdown]
print((heavy - {"matplotlib"}) & set(sys.modules))
"""


CHART = """
import importlib.abc, sys, threading, time
import numpy as np
import altair, streamlit
from pages.parts.search import why

assert "pandas" not in sys.modules
begun = threading.Event()

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.startswith("pandas.") and not begun.is_set():
            begun.set()
            time.sleep(3)

sys.meta_path.insert(0, Slow())
importing = threading.Thread(target=__import__, args=["pandas"])
importing.start()
assert begun.wait(60)
%s
importing.join()
"""


@pytest.mark.parametrize(
    "chart",
    [
        "import pages.parts.evaluation.query_chart",
        "why._histogram(np.array([0.5, 0.6]), np.array([0.1, 0.2]), 0.5).to_dict()",
        "why._inlier_ticks([{'inliers': 20, 'Result': 'a', 'name': 'b'}], 20).to_dict()",
    ],
)
def test_a_chart_while_another_thread_imports_pandas(chart):
    """As the first look at a store does: Evaluation, opened meanwhile, was a traceback."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", CHART % chart],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr


def test_first_paint_imports_no_deep_learning(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RETRIEVAL_DATA": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", VISIT], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert run.stdout.splitlines() == ["set()", "set()"], run.stdout + run.stderr
