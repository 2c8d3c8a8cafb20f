import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval import files, methods
from retrieval import index as indexes
from retrieval.cli.parser import _parser
from retrieval.collections import open_collection, read_ground_truth
from retrieval.errors import RetrievalError
from retrieval.evaluation import queries, rank_descriptors, runs
from retrieval.index import finding
from retrieval.methods.base import Method
from retrieval.networks import checkpoints
from retrieval.ranking import chain

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"
COLOURS = {"a.jpg": "red", "b.jpg": "blue", "c.jpg": "red", "d.jpg": "orange", "e.jpg": "lime"}


class Colour(Method):
    """The mean colour: real enough to be indexed and searched, and known by hand."""

    name, title, kind, defaults = "sir", "Colour", "global", {"size": 64}

    def describe(self, picture, box=None):
        if box:
            picture = picture.crop(box)
        mean = np.asarray(picture, np.float32).mean((0, 1)) + 1
        return mean / np.linalg.norm(mean)


@pytest.fixture
def method():
    return Colour(
        checkpoints.Checkpoint(
            "colour", "sir", "Colour", "none", "nothing", "none", "here", "0" * 64
        )
    )


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "shapes"
    root.mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (40, 30), colour).save(root / name)
    (root / "broken.jpg").write_bytes(b"no picture")
    query = Image.new("RGB", (40, 30), "blue")
    query.paste("red", (0, 0, 20, 30))
    query.save(root / "q.jpg")
    (root / "ground_truth.json").write_text(
        json.dumps(
            {
                "imlist": [*COLOURS, "broken.jpg"],
                "qimlist": ["q.jpg", "q.jpg"],
                "landmarks": ["Red", "Blue"],
                "gnd": [
                    {"bbx": [0, 0, 20, 30], "easy": [2, 5], "hard": [3], "junk": [0]},
                    {"bbx": [20, 0, 40, 30], "easy": [1], "hard": [], "junk": []},
                ],
            }
        )
    )
    return root


@pytest.fixture
def index(folder, method, tmp_path):
    return indexes.build(open_collection(folder), method, tmp_path / "index")


def test_rankings_by_hand(index, method, folder):
    collection = open_collection(folder)
    told = []
    turns = []
    ranks, timings = queries.rank_queries(
        index, method, collection, lambda *args: told.append(args), turn=lambda work: (
            turns.append(work), work()
        )[1]
    )  # fmt: skip
    assert len(turns) == 2
    # Two equal reds in the order of the collection, then orange; the unreadable one is missing.
    assert ranks.T.tolist()[0][:3] == [0, 2, 3]
    assert ranks.T.tolist()[1][0] == 1
    assert ranks[5].tolist() == [-1, -1]
    assert sorted(ranks[:5, 0]) == [0, 1, 2, 3, 4]
    assert told == [(1, 2, "q.jpg"), (2, 2, "q.jpg")]
    assert set(timings) == {"extraction", "search"}
    assert all(seconds.shape == (2,) for seconds in timings.values())


def test_run_is_kept_and_found_again(index, method, folder):
    collection = open_collection(folder)
    assert runs.load_run(index, collection) is None
    run = runs.evaluate_index(index, collection, method)
    # First query, easy: positives 2 and the unreadable 5; 3 and 0 ignored: 2 comes first.
    assert run.scores["easy"].aps.tolist() == [0.5, 1]
    assert run.scores["easy"].listed.tolist() == [1, 1]
    assert run.scores["medium"].aps[0] == pytest.approx(2 / 3)
    assert run.scores["hard"].counted.tolist() == [True, False]
    assert sorted(path.name for path in index.path.glob("*.new")) == []

    record = json.loads((index.path / "evaluation.json").read_text())
    assert record["protocols"]["easy"]["map"] == 0.75
    assert record["not_in_the_index"] == ["broken.jpg"]
    assert "could not be read when the index was made: 1. " in run.note
    stated = record["provenance"]
    assert (stated["method"], stated["checkpoint"], stated["pictures"]) == ("sir", "colour", 5)
    assert stated["checkpoint_sha256"] == "0" * 64
    assert stated["settings"] == {"size": 64}
    assert stated["collection_fingerprint"] == collection.fingerprint

    again = runs.load_run(indexes.load(index.path), collection)
    assert np.array_equal(again.ranks, run.ranks)
    assert again.ranks.dtype == np.int32
    assert set(again.timings) == {"extraction", "search"}
    assert again.scores["medium"].map == run.scores["medium"].map
    assert again.note == run.note


def test_kept_run_of_something_else_is_refused(index, method, folder):
    runs.evaluate_index(index, open_collection(folder), method)
    truth = json.loads((folder / "ground_truth.json").read_text())
    truth["gnd"][0]["easy"] = [2]
    (folder / "ground_truth.json").write_text(json.dumps(truth))
    with pytest.raises(
        RetrievalError,
        match=r"earlier index, other labels, .* settings; run: .* evaluate",
    ):
        runs.load_run(index, open_collection(folder))
    for content in ("", "[]", "{}", '{"provenance": 3}'):
        (index.path / "evaluation.json").write_text(content)
        with pytest.raises(RetrievalError, match="is damaged"):
            runs.load_run(index, open_collection(folder))


def test_a_query_picture_that_is_replaced_while_queries_are_ranked(index, method, folder):
    """The scores of the former one were kept as those of the new one."""
    replace_it = lambda *a: Image.new("RGB", (40, 30), "lime").save(folder / "q.jpg")  # noqa: E731
    runs.evaluate_index(index, open_collection(folder), method, replace_it)
    with pytest.raises(RetrievalError, match="other query pictures"):
        runs.load_run(index, open_collection(folder))


def test_a_kept_run_of_a_query_picture_that_was_replaced(index, method, folder):
    first = runs.evaluate_index(index, open_collection(folder), method)
    query = (folder / "q.jpg").read_bytes()
    Image.new("RGB", (40, 30), "lime").save(folder / "q.jpg")
    with pytest.raises(RetrievalError, match="other query pictures"):
        runs.load_run(index, open_collection(folder))
    assert runs.evaluated(index, open_collection(folder), method).scores["easy"].map < 0.75
    (folder / "q.jpg").write_bytes(query)
    again = runs.evaluated(index, open_collection(folder), method)
    assert again.scores["easy"].map == first.scores["easy"].map == 0.75
    (folder / "q.jpg").unlink()  # the index may go to a machine without the pictures
    assert runs.load_run(index, open_collection(folder)).scores["easy"].map == 0.75


def test_kept_rankings_larger_than_the_memory(index, method, folder, monkeypatch):
    """A megabyte of them became 8 GB where the ground truth had 50,000 queries."""
    collection = open_collection(folder)
    runs.evaluate_index(index, collection, method)
    most = 4 * len(collection.names) * len(collection.queries)
    monkeypatch.setattr(files, "MAX_ARRAYS", most)
    assert runs.load_run(index, collection) is not None
    monkeypatch.setattr(files, "MAX_ARRAYS", most - 1)
    with pytest.raises(RetrievalError, match="their rankings would take more than"):
        runs.load_run(index, collection)


def test_kept_rankings_that_were_cut_off(index, method, folder):
    runs.evaluate_index(index, open_collection(folder), method)
    path = index.path / "evaluation.npz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(RetrievalError, match="npz is damaged; run: python -m retrieval evaluate"):
        runs.load_run(index, open_collection(folder))


def test_a_run_with_the_same_rankings_is_not_written_again(index, method, folder):
    collection = open_collection(folder)
    first = runs.evaluate_index(index, collection, method)
    files = [index.path / "evaluation.npz", index.path / "evaluation.json"]
    before = [path.stat() for path in files]
    again = runs.evaluate_index(index, collection, method)
    assert [path.stat().st_mtime_ns for path in files] == [one.st_mtime_ns for one in before]
    assert [path.stat().st_ino for path in files] == [one.st_ino for one in before]
    assert np.array_equal(again.ranks, first.ranks)
    other = first.ranks[:, ::-1]
    runs.record_run(index, collection, other, first.timings)
    assert np.array_equal(runs.load_run(index, collection).ranks, other)


def test_an_index_that_is_replaced_or_removed_while_it_is_evaluated(index, method, folder):
    """A ranking of the old one is not kept as an evaluation of the new one."""
    collection = open_collection(folder)

    def replaced(done, total, name):
        Image.new("RGB", (40, 30), "lime").save(folder / "a.jpg")
        indexes.build(open_collection(folder), method, index.path)

    with pytest.raises(RetrievalError, match="was replaced or removed meanwhile"):
        runs.evaluate_index(index, collection, method, replaced)
    new = indexes.load(index.path)
    assert runs.load_run(new, collection) is None
    with pytest.raises(RetrievalError, match="was replaced or removed meanwhile"):
        runs.evaluate_index(
            new, collection, method, lambda *args: shutil.rmtree(index.path, ignore_errors=True)
        )


def test_an_evaluation_that_cannot_be_kept_says_so_before_it_works(
    index, method, folder, monkeypatch
):
    monkeypatch.setattr(runs.os, "access", lambda *args: False)
    asked = []
    with pytest.raises(RetrievalError, match="nothing can be written there"):
        runs.evaluate_index(index, open_collection(folder), method, lambda *a: asked.append(a))
    assert asked == []


def test_collection_of_an_index(index, folder):
    assert finding.collection_of(index).root == finding.collection_of(index, folder).root == folder
    elsewhere = folder.rename(folder.with_name("elsewhere"))
    with pytest.raises(RetrievalError, match=r"take it with --collection\. \(There is no folder"):
        finding.collection_of(index)
    assert finding.collection_of(index, elsewhere).names[0] == "a.jpg"
    elsewhere.rename(folder)
    (folder / "ground_truth.json").unlink()
    with pytest.raises(RetrievalError, match="another list of pictures"):
        finding.collection_of(index, folder)
    with pytest.raises(RetrievalError, match="There is no folder and no collection called nope"):
        finding.collection_of(index, "nope")


def test_ground_truth_beside_the_folder_of_the_pictures(index, method, folder):
    """Names may count from images/: labels and metadata were lost, and the order of the names."""
    pictures = folder / "images"
    pictures.mkdir()
    for path in folder.glob("*.jpg"):
        path.rename(pictures / path.name)
    truth = json.loads((folder / "ground_truth.json").read_text())
    truth["imlist"].reverse()
    (folder / "ground_truth.json").write_text(json.dumps(truth))
    collection = open_collection(folder)
    built = indexes.build(collection, method, index.path.with_name("built"))
    assert collection.root == pictures
    found = finding.collection_of(built).queries
    assert runs.labels_digest(found) == runs.labels_digest(collection.queries)
    # Labels of other pictures are none of this index.
    plain = indexes.build(open_collection(pictures), method, index.path.with_name("plain"))
    assert finding.collection_of(plain).queries == ()


# --- the commands --------------------------------------------------------------------------


def run(*words):
    """A command, whose errors are raised."""
    args = _parser().parse_args([str(word) for word in words])
    return args.run(args)


evaluate = partial(run, "evaluate")


def test_evaluate_an_index(index, method, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(methods, "for_index", lambda index, checkpoint=None: method)
    out = tmp_path / "scores.json"
    assert (
        evaluate(
            index.path,
            "--collection",
            folder,
            "--json",
            out,
            "--protocol",
            "easy",
            "--ranks",
            tmp_path / "ranks.npz",
        )
        == 0
    )
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "shapes: 2 queries, 5 of 6 pictures, sir with colour"
    assert printed[1].split() == ["protocol", "queries", "mAP", "mP@1", "mP@5", "mP@10"]
    # mP@5: the second positive is missing, so 1/5; the other query 1/1.
    assert printed[2].split() == ["easy", "2", "75.00", "100.00", "60.00", "55.00"]
    assert len(printed) == 3
    assert list(json.loads(out.read_text())["protocols"]) == ["easy"]
    assert list(json.loads((index.path / "evaluation.json").read_text())["protocols"]) == [
        "easy",
        "medium",
        "hard",
    ]
    # A file of rankings that somebody wants to score is not overwritten.
    with pytest.raises(RetrievalError, match="is there already, and would be overwritten"):
        evaluate(index.path, "--ranks", tmp_path / "ranks.npz")
    # The rankings it wrote score the same when they come back from outside.
    capsys.readouterr()
    assert (
        evaluate(
            "--ranks",
            tmp_path / "ranks.npz",
            "--ground-truth",
            folder / "ground_truth.json",
            "--protocol",
            "easy",
        )
        == 0
    )
    assert capsys.readouterr().out.splitlines()[2] == printed[2]


def test_descriptors_are_scored_as_on_the_page(folder, tmp_path, capsys):
    """The command refused a file with `queries` and `database`, which the page scores."""
    truth = read_ground_truth(folder / "ground_truth.json")
    rng = np.random.default_rng(0)
    asked, database = (
        rng.normal(size=(len(one), 4)).astype(np.float32) for one in (truth.queries, truth.names)
    )
    ranks = rank_descriptors(asked, database)
    np.savez(tmp_path / "descriptors.npz", queries=asked, database=database)
    np.savez(tmp_path / "ranks.npz", ranks=ranks, queries=asked, database=database)
    np.savez(tmp_path / "other.npz", best=ranks, worst=ranks[::-1])
    printed = []
    for name in ("descriptors.npz", "ranks.npz", "other.npz:best"):
        arguments = "--ranks", f"{tmp_path}/{name}", "--ground-truth", folder / "ground_truth.json"
        assert evaluate(*arguments) == 0
        printed.append(capsys.readouterr().out)
    assert len(set(printed)) == 1
    np.savez(tmp_path / "descriptors.npz", queries=asked[:1], database=database)
    with pytest.raises(RetrievalError, match="must be numbers in 2 rows, one for each query, not"):
        evaluate("--ranks", tmp_path / "descriptors.npz", *arguments[2:])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Give an index, or --ranks"),
        (["--ranks", "a.npz"], "Give an index, or --ranks"),
        (["--ranks", "a.npz", "--ground-truth", "g.pkl", "--collection", "town"], "Give an index"),
        (["--ground-truth", "g.pkl"], "Give an index"),
        (["nope", "--ground-truth", "g.pkl"], "either an index or --ranks"),
        (["--ranks", "a.npz", "--collection", "town", "--then", "best"], "--then is for an index"),
        (["--ranks", "a.npz", "--collection", "town", "--checkpoint", "a"], "--checkpoint is for"),
        (["--ranks", "a.npz", "--collection", "town", "--no-boxes"], "--no-boxes is for an index"),
        (["nope"], "There is no index in nope"),
    ],
)
def test_evaluate_needs_one_or_the_other(arguments, words):
    with pytest.raises(RetrievalError, match=words):
        evaluate(*arguments)


def test_evaluate_says_what_is_missing_before_it_works(index, folder):
    with pytest.raises(RetrievalError, match="has no labels for classic; it has them for easy"):
        evaluate(index.path, "--collection", folder, "--protocol", "classic")
    (folder / "q.jpg").unlink()
    with pytest.raises(RetrievalError, match=r"query picture q\.jpg of shapes is not on"):
        evaluate(index.path, "--collection", folder)


def test_evaluate_writes_whole_files_or_none(folder, tmp_path):
    np.savez(tmp_path / "ranks.npz", np.arange(6)[:, None].repeat(2, 1))
    arguments = ("--ranks", tmp_path / "ranks.npz", "--ground-truth", folder / "ground_truth.json")
    with pytest.raises(RetrievalError, match=r"There is no folder .*nope to write to"):
        evaluate(*arguments, "--json", tmp_path / "nope" / "out.json")
    (tmp_path / "taken").mkdir()
    with pytest.raises(RetrievalError, match="taken is a folder; name a file"):
        evaluate(*arguments, "--json", tmp_path / "taken")
    assert not list(tmp_path.glob("*.new"))


def test_evaluate_can_be_repeated_where_the_scores_could_not_be_written(
    index, method, folder, tmp_path, monkeypatch
):
    """The rankings were written first, and the same command refused to overwrite them."""
    monkeypatch.setattr(methods, "for_index", lambda index, checkpoint=None: method)
    out, ranks = tmp_path / "later" / "scores.json", tmp_path / "ranks.npz"
    arguments = index.path, "--collection", folder, "--json", out, "--ranks", ranks
    out.parent.mkdir()
    with monkeypatch.context() as patch:
        evaluate_index = runs.evaluate_index
        patch.setattr(
            runs, "evaluate_index", lambda *args: out.parent.rmdir() or evaluate_index(*args)
        )
        with pytest.raises(RetrievalError, match="cannot be written"):
            evaluate(*arguments)
    out.parent.mkdir()
    assert evaluate(*arguments) == 0
    assert out.is_file()
    assert ranks.is_file()


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="needs ../shared/reference")
def test_evaluate_foreign_rankings(tmp_path, capsys):
    out = tmp_path / "o.json"
    assert (
        evaluate(
            "--ranks",
            f"{REFERENCE}/ranks.npz:roxford5k",
            "--ground-truth",
            REFERENCE / "gnd_roxford5k.pkl",
            "--json",
            out,
        )
        == 0
    )
    assert "medium          70    4.77   17.14   15.43   12.57" in capsys.readouterr().out
    expected = json.loads((REFERENCE / "scores.json").read_text())["roxford5k"]
    found = json.loads(out.read_text())["protocols"]
    for protocol, one in expected.items():
        assert found[protocol]["map"] == pytest.approx(one["map"], abs=1e-9)
        assert found[protocol]["mp@1,5,10"] == pytest.approx(one["mp@1,5,10"], abs=1e-9)
    with pytest.raises(RetrievalError, match="several arrays"):
        evaluate(
            "--ranks", REFERENCE / "ranks.npz", "--ground-truth", REFERENCE / "gnd_roxford5k.pkl"
        )


def test_unknown_download_names_all():
    with pytest.raises(RetrievalError, match="rparis6k, commons, roxford5k-gem-features"):
        run("download", "nope")


def test_plot_of_evaluations(index, method, folder, tmp_path, capsys):
    from retrieval.cli import main

    out = tmp_path / "figure.svg"
    asked = ["plot", "evaluation", str(index.path), "--collection", str(folder), "--out"]
    assert main([*asked, str(out)]) == 1
    assert "was not evaluated" in capsys.readouterr().err
    runs.evaluate_index(index, open_collection(folder), method)
    for figure in ("queries", "curves", "distribution", "landmarks"):
        assert main([*asked, str(out), "--figure", figure, "--protocol", "easy"]) == 0
        assert out.read_bytes().startswith(b"<?xml")
        out.unlink()
    twice = shutil.copytree(index.path, tmp_path / "other settings")
    assert main([*asked[:3], str(twice), *asked[3:], str(out)]) == 0
    assert "2 indexes, medium" in capsys.readouterr().out
    out.unlink()
    assert main([*asked, str(tmp_path / "figure.gif")]) == 1
    assert main([*asked, str(out), "--protocol", "classic"]) == 1
    assert "no labels for classic" in capsys.readouterr().err


def test_plot_of_evaluations_of_different_collections(method, folder, tmp_path, capsys):
    """With as many queries as each other, as ROxford and RParis, one was taken for the other."""
    from retrieval.cli import main

    made = []
    for name, right in (("one", 1), ("two", 2)):
        copy = shutil.copytree(folder, tmp_path / name)
        truth = json.loads((copy / "ground_truth.json").read_bytes())
        for entry in truth["gnd"]:
            entry["easy"] = [right]
        (copy / "ground_truth.json").write_text(json.dumps(truth))
        collection = open_collection(copy)
        built = indexes.build(collection, method, tmp_path / f"index {name}")
        runs.evaluate_index(built, collection, method)
        made.append(str(built.path))
    assert main(["plot", "evaluation", *made, "--out", str(tmp_path / "figure.svg")]) == 1
    assert "with different pictures, queries or labels" in capsys.readouterr().err


def test_runs_of_one_second_are_told_apart(index, method, folder):
    """The app caches figures by the time of a run, so that runs within one second must differ."""
    collection = open_collection(folder)
    chains = ((), ("diffusion",), ("expansion",))
    made = {
        runs.evaluate_index(index, collection, method, then=one).record["made"] for one in chains
    }
    assert len(made) == 3


def test_runs_of_chains_are_kept_apart(index, method, folder, monkeypatch):
    collection = open_collection(folder)
    alone = runs.evaluate_index(index, collection, method)
    assert runs.load_run(index, collection, ("diffusion",)) is None
    run = runs.evaluate_index(index, collection, method, then=("expansion", "diffusion"))
    assert set(run.timings) == {"extraction", "search", "expansion", "diffusion"}
    assert [one["name"] for one in run.record["provenance"]["then"]] == ["expansion", "diffusion"]
    assert (index.path / "evaluation-expansion+diffusion.npz").is_file()
    again = runs.load_run(index, collection, ("expansion", "diffusion"))
    assert np.array_equal(again.ranks, run.ranks)
    kept = runs.load_run(index, collection)
    assert np.array_equal(kept.ranks, alone.ranks)
    assert "then" not in kept.record["provenance"]
    (index.path / "evaluation-unknown.json").write_text("{}")
    (index.path / "evaluation-.json").write_text("{}")
    assert runs.kept_chains(index) == [("expansion", "diffusion"), ()]
    # Another setting, another run: the kept one is refused, not shown.
    changed = {**chain.RERANKERS["diffusion"].settings, "alpha": 0.9}
    monkeypatch.setitem(
        chain.RERANKERS, "diffusion", chain.RERANKERS["diffusion"]._replace(settings=changed)
    )
    with pytest.raises(RetrievalError, match=r"other settings; run: .* --then expansion,diffusion"):
        runs.load_run(index, collection, ("expansion", "diffusion"))


def test_a_query_of_the_collection_does_not_help_itself(index, method, folder):
    """a.jpg asks, and is a picture of the index: its place stays, and others come as without it."""
    truth = json.loads((folder / "ground_truth.json").read_text())
    truth["qimlist"] = ["a.jpg", "a.jpg"]
    for labels in truth["gnd"]:
        labels["bbx"] = None
    (folder / "ground_truth.json").write_text(json.dumps(truth))
    collection = open_collection(folder)
    plain, _ = queries.rank_queries(index, method, collection)
    ranks, _ = queries.rank_queries(index, method, collection, then=("expansion-average",))
    assert plain[0, 0] == ranks[0, 0] == 0
    # The average of the query and the five nearest: here those are the four others.
    vectors = {i: index.features(i) for i in range(5)}
    asked = vectors[0] + sum(vectors[i] for i in range(1, 5))
    expected = sorted(range(1, 5), key=lambda i: -round(float(vectors[i] @ asked), 4))
    assert ranks[1:5, 0].tolist() == expected


def test_a_query_of_the_collection_that_was_replaced(folder, method, tmp_path):
    """It was scored as it is now, and the run was still taken for one of the index when the picture
    was back: of sixteen pictures, mAP 88.6 in place of 81.0."""
    truth = json.loads((folder / "ground_truth.json").read_text())
    truth["qimlist"] = ["a.jpg", "q.jpg"]
    (folder / "ground_truth.json").write_text(json.dumps(truth))
    collection = open_collection(folder)
    index = indexes.build(collection, method, tmp_path / "other")
    run = runs.evaluate_index(index, collection, method)
    shutil.copy(folder / "e.jpg", folder / "a.jpg")
    words = "a.jpg was replaced since the index .*/other was made; index the collection again"
    with pytest.raises(RetrievalError, match=words):
        runs.evaluate_index(index, collection, method)
    assert runs.load_run(index, collection).record == run.record


def test_very_many_queries(index, method, folder, monkeypatch):
    """The rankings have a limit: for 2 MB of names they would take 8 GB of memory."""
    collection = open_collection(folder)
    monkeypatch.setattr(files, "MAX_ARRAYS", 4 * 6 * 2)
    assert queries.rank_queries(index, method, collection)[0].shape == (6, 2)
    monkeypatch.setattr(files, "MAX_ARRAYS", 4 * 6 * 2 - 1)
    with pytest.raises(RetrievalError, match="2 queries for 6 pictures: their rankings"):
        queries.rank_queries(index, method, collection)


def test_a_re_ranking_that_cannot_look_at_all_pictures_is_not_evaluated(method, drawn, tmp_path):
    """It was kept as if it had looked, with the figures of something in between."""
    names = ["a.png", "b.png", "c.png"]
    for seed, name in enumerate(names):
        drawn(seed).save(tmp_path / name)
    truth = {"imlist": names, "qimlist": ["a.png"], "gnd": [{"easy": [1]}]}
    (tmp_path / "ground_truth.json").write_text(json.dumps(truth))
    collection = open_collection(tmp_path)
    index = indexes.build(collection, method, tmp_path / "index")
    (tmp_path / "c.png").rename(tmp_path / "gone.png")
    with pytest.raises(RetrievalError, match="1 of 2 pictures could not be checked"):
        runs.evaluate_index(index, collection, method, then=["geometry"])
    (tmp_path / "gone.png").rename(tmp_path / "c.png")
    runs.evaluate_index(index, collection, method, then=["geometry"])


def test_a_chain_that_the_index_cannot_serve(index, method, folder):
    with pytest.raises(RetrievalError, match="a DELF index of the same pictures beside"):
        runs.evaluate_index(index, open_collection(folder), method, then=["geometry-delf"])


def test_the_query_whose_box_is_too_small_is_named(index, method, folder):
    truth = json.loads((folder / "ground_truth.json").read_text())
    truth["gnd"][1]["bbx"] = [20, 0, 22, 2]
    (folder / "ground_truth.json").write_text(json.dumps(truth))
    with pytest.raises(RetrievalError, match=r"The query q.jpg: The box 20, 0, 22, 2 covers less"):
        runs.evaluate_index(index, open_collection(folder), method)


def test_what_the_boxes_are_worth(index, method, folder, monkeypatch, capsys):
    monkeypatch.setattr(methods, "for_index", lambda index, checkpoint=None: method)
    assert evaluate(index.path, "--collection", folder, "--no-boxes") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith("sir with colour, whole queries without their boxes")
    collection = open_collection(folder)
    boxed = runs.load_run(index, collection)
    whole = runs.load_run(index, collection.without_boxes())
    # Both queries are the same picture: without their boxes they have the same answer.
    assert np.array_equal(whole.ranks[:, 0], whole.ranks[:, 1])
    assert not np.array_equal(boxed.ranks[:, 0], boxed.ranks[:, 1])
    worth = 100 * (whole.scores["easy"].map - boxed.scores["easy"].map)
    assert printed[-1].startswith(f"mAP against the boxes: easy {worth:+.2f}, ")
    assert whole.record["queries"][0]["box"] is None
    assert runs.kept_chains(index) == [()]
    truth = json.loads((folder / "ground_truth.json").read_text())
    truth["gnd"] = [{**entry, "bbx": None} for entry in truth["gnd"]]
    (folder / "ground_truth.json").write_text(json.dumps(truth))
    with pytest.raises(RetrievalError, match="pictures with boxes"):
        evaluate(index.path, "--collection", folder, "--no-boxes")
