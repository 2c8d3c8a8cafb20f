"""What a search loads: TensorFlow and torchvision cost a host seconds and hundreds of megabytes."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SEARCH = """
import sys
from retrieval import images, index, methods
from retrieval.collections import open_collection
from retrieval.ranking.search import rank_picture

town = open_collection("town")
picture = images.read(town.path(town.names[0]))
for name, path in index.find("town").items():
    opened = index.load(path)
    ranking = rank_picture(opened, methods.for_index(opened), picture)
    assert ranking.names[0] == town.names[0], ranking.names[:3]
    print(name, {"tensorflow", "torchvision", "triton", "streamlit"} & set(sys.modules))
"""


def test_a_search_with_each_method_loads_neither_tensorflow_nor_torchvision():
    run = subprocess.run([sys.executable, "-c", SEARCH], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.splitlines() == ["sir set()", "delf set()", "cnn-irwnha set()"], run.stderr
