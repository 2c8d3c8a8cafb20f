"""demo.ipynb: what a reader sees in the file, and that all of it runs."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import nbformat
import PIL
import pytest
from nbclient import NotebookClient

from retrieval.cli import parser

ROOT = Path(__file__).parents[1]
FILE = ROOT / "demo.ipynb"
ELSEWHERE = {"colab", "gpu"}  # tags of cells that do nothing on this machine


@pytest.fixture(scope="module")
def saved():
    return nbformat.read(FILE, as_version=4)


def code_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell):
    """The text of a cell's outputs, which pictures come without."""
    return "".join(
        output.text if output.output_type == "stream" else output.data.get("text/plain", "")
        for output in cell.outputs
    )


def test_every_cell_is_explained_by_the_text_above_it(saved):
    for above, cell in zip([None, *saved.cells], saved.cells, strict=False):
        if cell.cell_type == "code":
            assert above is not None
            assert above.cell_type == "markdown"
            assert above.source.rstrip().endswith(".")


def test_the_file_can_be_read_without_running_it(saved):
    assert FILE.stat().st_size < 1_500_000
    assert [cell.execution_count for cell in code_of(saved)] == list(
        range(1, len(code_of(saved)) + 1)
    )
    pictures = sum(
        "image/jpeg" in output.get("data", {}) for cell in code_of(saved) for output in cell.outputs
    )
    assert pictures >= 5
    for cell in code_of(saved):
        assert all(output.get("name") != "stderr" for output in cell.outputs)


def test_its_scores_are_those_of_the_embedded_indexes(saved):
    """They were those of earlier networks."""
    [table] = [printed(cell) for cell in code_of(saved) if "mAP easy" in printed(cell)]
    rows = {words[2]: words for line in table.splitlines() if len(words := line.split()) > 5}
    kept = sorted((ROOT / "precomputed" / "town").glob("*/evaluation.json"))
    assert len(kept) == 4
    for path in kept:
        protocols = json.loads(path.read_text("utf-8"))["protocols"]
        scores = [f"{100 * protocols[name]['map']:.1f}" for name in ("easy", "medium", "hard")]
        assert rows[path.parent.name][3:6] == scores


def test_re_ranking_is_shown_with_a_query_that_it_improves(saved):
    """With new networks its example had become one of the five queries whose AP falls."""
    [table] = [printed(cell) for cell in code_of(saved) if "Diffusion" in printed(cell)]
    search, geometry, diffusion = (float(line.split()[2]) for line in table.splitlines()[1:])
    assert search < geometry < diffusion


def test_in_colab_an_old_pillow_in_memory_asks_for_a_restart(saved, tmp_path, monkeypatch):
    """Colab loads its own before anything is installed: modules of both versions were mixed, and
    the cell cloned again into the same folder after a restart, which is an error.
    """
    commands = []

    def run(command, check):
        commands.append(command)
        if "clone" in command:
            folder = Path(command[-1])
            folder.mkdir()
            for name in ("app.py", "requirements.txt"):
                (folder / name).write_bytes((ROOT / name).read_bytes())

    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setattr(subprocess, "run", run)
    cell = code_of(saved)[0].source.replace("/tmp/", f"{tmp_path.as_posix()}/")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(PIL, "__version__", "11.3.0")
    with pytest.raises(RuntimeError, match="Restart session and run all"):
        exec(cell, {})
    monkeypatch.chdir(tmp_path)  # where a new session begins
    monkeypatch.setattr(PIL, "__version__", version("pillow"))
    exec(cell, {})
    assert ["clone" in command for command in commands] == [True, False, False]
    assert Path("app.py").is_file()
    assert "tensorflow" not in (tmp_path / "needed.txt").read_text("utf-8")


def test_it_runs_from_top_to_bottom(saved):
    fresh = nbformat.from_dict(saved)
    client = NotebookClient(
        fresh,
        timeout=1200,
        coalesce_streams=True,  # what is printed may arrive in one piece or in several
        resources={"metadata": {"path": str(ROOT)}},
    )
    client.execute()  # raises where a cell does
    for was, now in zip(code_of(saved), code_of(fresh), strict=True):
        if ELSEWHERE & set(was.metadata.get("tags", ())):
            assert now.outputs == []
        else:
            # The same kinds of output, with as many lines; last digits may differ by machine.
            assert [one.output_type for one in now.outputs] == [
                one.output_type for one in was.outputs
            ]
            assert len(printed(now).splitlines()) == len(printed(was).splitlines())


def test_the_commands_for_a_gpu_are_commands(saved):
    (cell,) = (cell for cell in code_of(saved) if "gpu" in cell.metadata.get("tags", ()))
    commands = cell.source.split('"""')[1].strip().splitlines()
    assert len(commands) == 5
    for command in commands:
        assert command.startswith("python -m retrieval ")
        parser._parser().parse_args(command.split()[3:])
