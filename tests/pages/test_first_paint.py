"""The first paint of a page is quick: it imports no deep learning library."""

import os
import subprocess
import sys
from pathlib import Path

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


def test_first_paint_imports_no_deep_learning(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RETRIEVAL_DATA": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", VISIT], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert run.stdout.splitlines() == ["set()", "set()"], run.stdout + run.stderr
