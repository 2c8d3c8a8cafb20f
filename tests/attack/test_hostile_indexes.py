"""Indexes from strangers: they may be refused, but nothing that they name is opened or run."""

import hashlib
import json
import os
import random
import shutil
import sys
import zipfile

import numpy as np
import pytest
from attack.indexes import edit, edited, forge, mutate
from PIL import Image
from stubs import Grid, Thumbnail, paint, refused

from retrieval import cli, files, images, methods
from retrieval import index as indexes
from retrieval.collections import open_collection
from retrieval.errors import RetrievalError
from retrieval.evaluation import queries, runs
from retrieval.index import checks, finding, layout
from retrieval.index.layout import Part
from retrieval.networks import checkpoints
from retrieval.ranking.search import rank_picture


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    root = tmp_path_factory.mktemp("honest")
    for seed in range(3):
        paint(root / "pictures" / f"{seed}.png", seed)
    method = methods.load("cnn-irwnha", size=64, scales=[1.0])
    indexes.build(open_collection(root / "pictures"), method, root / "index")
    return root / "index"


@pytest.fixture
def forged(honest, tmp_path):
    """``forged(change)``: a copy with its manifest changed."""
    return lambda change: edited(shutil.copytree(honest, tmp_path / "forged"), change)


@pytest.fixture
def loaded(monkeypatch):
    """What was loaded since the test began."""
    records = []
    monkeypatch.setattr(methods, "load_record", lambda record, /, **_: records.append(record))
    return records


def test_a_path_in_place_of_a_checkpoint(forged, tmp_path, loaded):
    network = shutil.copy(checkpoints.REGISTRY["gem-lite0"].path, tmp_path / "theirs.pth")
    digest = hashlib.sha256(network.read_bytes()).hexdigest()
    index = indexes.load(
        forged(lambda m: m.update(checkpoint={"id": str(network), "sha256": digest}))
    )
    with pytest.raises(RetrievalError, match="no registered checkpoint"):
        methods.for_index(index)
    with pytest.raises(RetrievalError, match="was made with checkpoint"):
        methods.for_index(index, network)  # the user's word for the file, by another id
    assert loaded == []


def test_hashes_are_compared_before_anything_is_loaded(forged, loaded):
    index = indexes.load(forged(lambda m: m["checkpoint"].update(sha256="ab" * 32)))
    with pytest.raises(RetrievalError, match=r"was made with checkpoint gem-lite0 \(abababab\)"):
        methods.for_index(index)
    with pytest.raises(RetrievalError, match="was made with checkpoint"):
        methods.for_index(index, checkpoints.REGISTRY["gem-lite0"].path)
    assert loaded == []


@pytest.mark.parametrize("name", ["checkpoint", "record", "method", "self", "network"])
def test_settings_are_not_arguments(forged, name):
    index = indexes.load(forged(lambda m: m["settings"].update({name: "/tmp/x"})))
    with pytest.raises(RetrievalError, match=f"has no setting {name}"):
        methods.for_index(index)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(made="\ud800"),
        lambda m: m.update(made=2026),
        lambda m: m["checkpoint"].update(id="\ud800"),
        lambda m: m["settings"].update(x="\ud800"),
        lambda m: m["settings"].update(x=[[1]]),
        lambda m: m["settings"].update(x={"y": 1}),
        lambda m: m["collection"].__delitem__("fingerprint"),
        lambda m: m["versions"].update(numpy=[[1]]),
        lambda m: m.update(made="x" * 200_000),
        lambda m: m["collection"].update(name="x" * 10_000),  # each answer of the service has it
    ],
)
def test_manifests_that_lack_something_or_cannot_be_sent_as_json(forged, change):
    """One such index would turn the list of all indexes of the service into an error."""
    with pytest.raises(RetrievalError, match="was edited or damaged"):
        indexes.load(forged(change))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["settings"].update(x=float("inf")),  # JSON can spell it: 1e999
        lambda m: m.update(seconds=float("inf")),
        lambda m: m.update(seconds=10**400),
        lambda m: m.update(pictures=10**30),
        lambda m: m["files"]["images.json"].update(bytes=10**400),
    ],
)
def test_numbers_that_no_index_has(honest, change):
    """The list of indexes of the service, and ``info`` of a store, ended in a traceback."""
    manifest = json.loads((honest / "manifest.json").read_bytes())
    checks.check_manifest(manifest, honest)
    change(manifest)
    manifest["sha256"] = layout.manifest_digest(manifest)
    with pytest.raises(RetrievalError, match="was edited or damaged"):
        checks.check_manifest(manifest, honest)


def test_a_manifest_as_deep_as_python_can_read(honest, tmp_path):
    """What it takes to read it leaves too little to write it, for its checksum."""
    path = shutil.copytree(honest, tmp_path / "deep")
    text = (path / "manifest.json").read_text("utf-8")
    refusals = set()
    for depth in range(700, sys.getrecursionlimit()):
        nested = f'{{"deep": {"[" * depth}{"]" * depth}, "name"'
        (path / "manifest.json").write_text(text.replace('{\n  "name"', nested), "utf-8")
        with pytest.raises(RetrievalError) as caught:
            indexes.load(path)
        refusals.add(str(caught.value).split()[-1])
    assert len(refusals) == 1, "every one ends with what to do"


def test_a_setting_with_more_digits_than_a_number_has(forged):
    index = indexes.load(forged(lambda m: m["settings"].update(size=10**400)))
    with pytest.raises(RetrievalError, match="setting size of CNN-IRwNHA cannot be 1000"):
        methods.for_index(index)


def test_a_folder_that_is_the_whole_disk(forged, tmp_path, monkeypatch):
    """To search it took as long as the disk is large."""
    monkeypatch.setattr(finding, "MAX_OTHER_FILES", 50)
    for number in range(90):
        (tmp_path / "disk" / str(number)).mkdir(parents=True)
    where = {"name": "x", "folder": str(tmp_path / "disk")}
    index = indexes.load(forged(lambda m: m["collection"].update(where)))
    with pytest.raises(RetrievalError, match=r"has more than .* files and folders"):
        finding.collection_of(index)


def test_a_path_in_place_of_a_collection(forged, honest):
    def change(manifest):
        manifest["collection"].pop("folder", None)
        manifest["collection"]["name"] = str(honest.parent / "pictures")

    with pytest.raises(RetrievalError, match="take it with --collection"):
        finding.collection_of(indexes.load(forged(change)))


@pytest.fixture(scope="module", params=[(Thumbnail, "exact"), (Grid, "exact"), (Thumbnail, "hnsw")])
def town(request, tmp_path_factory):
    """A labelled folder and its index with a stub, evaluated: (method, index, collection)."""
    root = tmp_path_factory.mktemp("town")
    names = [f"{seed}.png" for seed in range(4)]
    for seed, name in enumerate(names):
        paint(root / "pictures" / name, seed)
    truth = {"imlist": names, "qimlist": names[:2], "gnd": [{"easy": [1]}, {"hard": [2]}]}
    (root / "pictures" / "ground_truth.json").write_text(json.dumps(truth))
    collection = open_collection(root / "pictures")
    stub, search = request.param
    method = stub()
    index = indexes.build(collection, method, root / "index", search=search)
    runs.evaluate_index(index, collection, method)
    return method, root / "index", collection


def use(path, method, collection):
    """Everything that doors do with an index; the errors that users see come out."""
    index = indexes.load(path)
    cli.main(["info", str(path)])
    picture = images.read(collection.path("0.png"))
    ranking = rank_picture(index, method, picture)
    json.dumps([ranking.rows(), ranking.provenance])
    run = runs.load_run(index, collection)
    if run is not None:
        json.dumps(run.record)
    queries.rank_queries(index, method, collection)
    finding.collection_of(index)


def attack(town, rounds, seed):
    method, honest, collection = town
    chance = random.Random(seed)
    passed = 0
    for number in range(rounds):
        path = shutil.copytree(honest, honest.with_name(f"copy {number}"))
        said = mutate(path, chance)
        try:
            use(path, method, collection)
            passed += 1
        except RetrievalError:
            pass
        except Exception as error:
            raise AssertionError(f"{type(error).__name__} after {said}") from error
        shutil.rmtree(path)
    assert 0 < passed < 0.6 * rounds


def test_edited_indexes_with_matching_checksums(town):
    attack(town, 200, 1)


@pytest.mark.long
def test_many_edited_indexes_with_matching_checksums(town):
    for seed in range(2, 32):
        attack(town, 200, seed)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("word_counts", lambda a: a.__setitem__(0, -4)),
        ("word_counts", lambda a: a.__setitem__(0, a[0] + 1)),
        ("word_signs", lambda a: a.__setitem__(0, 2**63)),
        ("word_pictures", lambda a: a.__setitem__(slice(None), 0)),
        ("codebook", lambda a: a[:0]),
        ("codebook", lambda a: a.__setitem__(0, 1e30)),  # nearest to nothing, and built with
        # Differences of these overflow into what looks ascending.
        ("word_starts", lambda a: [0, 2**63 - 1, -(2**63), -1, *[0] * (len(a) - 5), a[-1]]),
        ("offsets", lambda a: [0, 2**63 - 1, -(2**63), -1, *[0] * (len(a) - 5), a[-1]]),
    ],
)
def test_an_inverted_file_that_is_none(tmp_path, town, name, change):
    method, honest, _ = town
    if method.kind == "global":
        pytest.skip("has none")
    path = shutil.copytree(honest, tmp_path / "index")
    array = np.load(path / f"{name}.npy")
    new = change(array)
    np.save(path / f"{name}.npy", array if new is None else new)
    forge(path)
    with pytest.raises(RetrievalError, match="contradict its manifest"):
        indexes.load(path)


def test_descriptors_of_another_width(tmp_path, town):
    method, honest, _ = town
    path = shutil.copytree(honest, tmp_path / "index")
    for name in ("descriptors", "codebook") if method.kind == "local" else ("descriptors",):
        np.save(path / f"{name}.npy", np.load(path / f"{name}.npy")[:, :3])
    signs = path / "word_signs.npy"
    if signs.exists():
        np.save(signs, np.load(signs) & np.uint64(7))
    forge(path)
    with pytest.raises(RetrievalError, match="holds descriptors of 3 numbers and not of"):
        rank_picture(indexes.load(path), method, Image.new("RGB", (40, 30), "red"))


def test_descriptors_longer_than_any_network_gives(tmp_path, honest):
    """A thousand pictures with 150,000 numbers each: augmentation took 66 s and 3.9 GB."""
    path = shutil.copytree(honest, tmp_path / "index")
    for width in (4096, 4097):
        np.save(path / "descriptors.npy", np.eye(3, width, dtype=np.float16))
        forge(path)
        if width == 4096:
            assert indexes.load(path).width == width
    with pytest.raises(RetrievalError, match="contradict its manifest"):
        indexes.load(path)


def test_descriptors_that_are_not_of_unit_length(tmp_path, honest):
    """A likeness of 4,000,000,000,000 was shown."""
    path = shutil.copytree(honest, tmp_path / "index")
    for factor in (1.02, 30000, np.nan):
        np.save(path / "descriptors.npy", np.load(honest / "descriptors.npy") * np.float16(factor))
        forge(path)
        with pytest.raises(RetrievalError, match="contradict its manifest"):
            indexes.load(path)


@pytest.mark.parametrize("name", ["descriptors.npy", "images.json"])
def test_a_terabyte_of_nothing(tmp_path, honest, name):
    """A tar of 0.4 MB lays it on the disk; its checksum took an hour, before it was compared."""
    path = shutil.copytree(honest, tmp_path / "index")
    os.truncate(path / name, 2**40)

    def change(manifest):
        manifest["files"][name]["bytes"] = 2**40
        manifest["pictures"] = 2**30
        manifest["sha256"] = layout.manifest_digest(manifest)

    edit(path / "manifest.json", change)
    refused(f"{name} in the index .* is too large for", indexes.load, path)


def test_a_terabyte_for_pictures_that_are_nothing_too(tmp_path, honest):
    """A gigabyte of zeros in images.json had room for 25 million, and these for 8 TB."""
    path = shutil.copytree(honest, tmp_path / "index")
    sizes = {"descriptors.npy": 10**12, "images.json": 200_000_000}
    for name, size in sizes.items():
        os.truncate(path / name, size)

    def change(manifest):
        for name, size in sizes.items():
            manifest["files"][name]["bytes"] = size
        manifest["pictures"] = 2**30
        manifest["sha256"] = layout.manifest_digest(manifest)

    edit(path / "manifest.json", change)
    refused(
        "descriptors.npy in the index .* was not written as a whole: parts of it are missing",
        indexes.load,
        path,
    )


@pytest.mark.parametrize(("keypoints", "words"), [(5000, 0), (5001, 0), (0, 65_536), (0, 65_537)])
def test_a_picture_of_very_many_keypoints_or_words(tmp_path, town, keypoints, words):
    """A hundred megabytes of them kept a search busy for minutes and took 2.5 GB."""
    method, honest, _ = town
    if method.kind == "global":
        pytest.skip("has none")
    path = shutil.copytree(honest, tmp_path / "index")

    def change(name, function):
        np.save(path / f"{name}.npy", function(np.load(path / f"{name}.npy")))

    if keypoints:  # of the last picture, whose own are repeated
        more = keypoints - int(np.diff(np.load(path / "offsets.npy"))[-1])
        for name in ("descriptors", "keypoints", "scales", "scores"):
            change(name, lambda a: np.concatenate([a, np.repeat(a[-1:], more, axis=0)]))
        change("offsets", lambda a: np.append(a[:-1], a[-1] + more))
    if words:
        change("codebook", lambda a: np.resize(a, (words, a.shape[1])))
        change("word_starts", lambda a: np.append(a, np.repeat(a[-1:], words + 1 - len(a))))
    forge(path)
    if (keypoints, words) in [(5000, 0), (0, 65_536)]:
        indexes.load(path)
    else:
        with pytest.raises(RetrievalError, match="contradict its manifest"):
            indexes.load(path)


def test_pictures_without_pixels(tmp_path, honest):
    """Geometry divided by their size."""
    path = shutil.copytree(honest, tmp_path / "index")
    edit(path / "images.json", lambda all_of_them: all_of_them[1].update(height=0))
    forge(path)
    with pytest.raises(RetrievalError, match="contradict its manifest"):
        indexes.load(path)


def test_parts_with_descriptors_of_another_width(tmp_path, town):
    method, _, collection = town
    parts = [tmp_path / str(number) for number in (1, 2)]
    for number, path in enumerate(parts, 1):
        indexes.build(collection, method, path, part=Part(number, 2))
    np.save(parts[1] / "descriptors.npy", np.load(parts[1] / "descriptors.npy")[:, :3])
    forge(parts[1])
    with pytest.raises(RetrievalError, match="descriptors have different lengths"):
        indexes.merge(parts, tmp_path / "merged")


def test_an_update_of_an_index_with_descriptors_of_another_width(tmp_path, town):
    method, honest, collection = town
    path = shutil.copytree(honest, tmp_path / "index")
    np.save(path / "descriptors.npy", np.load(path / "descriptors.npy")[:, :3])
    more = shutil.copytree(collection.root, tmp_path / "more")
    (more / "ground_truth.json").unlink()
    paint(more / "new.png", 99)
    if method.kind == "local":
        np.save(path / "codebook.npy", np.load(path / "codebook.npy")[:, :3])
        np.save(path / "word_signs.npy", np.load(path / "word_signs.npy") & np.uint64(7))
    forge(path)
    search = indexes.load(path).search
    with pytest.raises(RetrievalError, match="descriptors have different lengths"):
        indexes.build(open_collection(more), method, path, search=search)


def test_pictures_that_are_not_in_the_collection(tmp_path, town):
    method, honest, collection = town
    path = shutil.copytree(honest, tmp_path / "index")
    edit(path / "images.json", lambda all_of_them: all_of_them[0].update(name="other.png"))
    forge(path)
    with pytest.raises(RetrievalError, match=r"holds 'other\.png', which is not in"):
        queries.rank_queries(indexes.load(path), method, collection)
    with pytest.raises(RetrievalError, match=r"holds 'other\.png', which is not in"):
        queries.ranks_of(indexes.load(path), collection, [])  # an ablation


@pytest.mark.parametrize("name", ["positions", "similarity"])
def test_neighbours_that_are_no_array(tmp_path, town, name):
    _, honest, _ = town
    path = shutil.copytree(honest, tmp_path / "index")
    found = indexes.load(path).neighbours
    with zipfile.ZipFile(path / "neighbours.npz") as archive:
        members = {one: archive.read(one) for one in archive.namelist()}
    del members[f"{name}.npy"]
    with zipfile.ZipFile(path / "neighbours.npz", "w") as archive:
        for one, data in {**members, name: b"hello"}.items():
            archive.writestr(one, data)
    again = indexes.load(path).neighbours
    assert np.array_equal(again.positions, found.positions)
    assert np.array_equal(again.similarity, found.similarity)


def test_an_evaluation_with_very_many_stages(tmp_path, town):
    """The archive was opened for each: 10,000 in 2 MB took minutes."""
    _, honest, collection = town
    path = shutil.copytree(honest, tmp_path / "index")
    with np.load(path / "evaluation.npz") as archive:
        arrays = dict(archive)
    stages = {f"{number}": np.zeros(2, np.float16) for number in range(30)}
    arrays |= {f"seconds_{name}": seconds for name, seconds in stages.items()}
    np.savez_compressed(path / "evaluation.npz", **arrays)
    edit(path / "evaluation.json", lambda e: e.update(seconds_a_query=dict.fromkeys(stages, 0)))
    with pytest.raises(RetrievalError, match="is damaged"):
        runs.load_run(indexes.load(path), collection)


def test_an_evaluation_that_says_very_much(tmp_path, town):
    """A hundred megabytes of JSON, which pack into 240 kB, took 0.9 GB of each of 24 runs."""
    _, honest, collection = town
    path = shutil.copytree(honest, tmp_path / "index")
    index = indexes.load(path)
    kept = runs.load_run(index, collection).record
    edit(path / "evaluation.json", lambda e: e.update(more=[{"abcdefghijklm": 0.5}] * 10_000))
    assert runs.load_run(index, collection).record == kept
    for change in (
        lambda e: e.update(more="x" * 3_000_000),
        lambda e: e.update(more=0, made="x" * 200_000),
        lambda e: e.update(made=kept["made"]) or e["provenance"].update(machine="x" * 200_000),
    ):
        edit(path / "evaluation.json", change)
        with pytest.raises(RetrievalError, match="is damaged"):
            runs.load_run(index, collection)


def test_an_evaluation_that_is_one_large_array(tmp_path, town, monkeypatch):
    """Each of its stages had the seconds of all rankings before any was checked: 21 GB."""
    _, honest, collection = town
    path = shutil.copytree(honest, tmp_path / "index")
    ranks = np.full((len(collection), 2), -1, np.int32)
    np.save(path / "all.npy", ranks)
    (path / "all.npy").rename(path / "evaluation.npz")
    stages = dict.fromkeys("abcdefghij", 0)
    edit(path / "evaluation.json", lambda e: e.update(seconds_a_query=stages))
    read, names = files.read_array, []
    monkeypatch.setattr(
        files, "read_array", lambda path, name, most: names.append(name) or read(path, name, most)
    )
    with pytest.raises(RetrievalError, match="is damaged"):
        runs.load_run(indexes.load(path), collection)
    assert names == ["ranks", "seconds_a"]


@pytest.mark.parametrize("name", ["evaluation.npz", "evaluation.json"])
def test_a_flipped_bit_in_an_evaluation(tmp_path, town, name):
    _, honest, collection = town
    path = shutil.copytree(honest, tmp_path / "index")
    index = indexes.load(path)
    whole = (path / name).read_bytes()
    for place in range(0, len(whole), 7):
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        (path / name).write_bytes(data)
        try:
            run = runs.load_run(index, collection)
        except RetrievalError:
            continue
        assert all(len(one) == 2 for one in run.timings.values())
        assert "easy" in run.record["protocols"]


@pytest.mark.parametrize(
    "seconds", [[0.1], [[0.1], [0.1]], [-1.0, 0.1], [np.nan, 0.1], [1e300, 0.1], [1, 2], [1j, 2j]]
)
def test_seconds_that_no_evaluation_takes(tmp_path, town, seconds):
    _, honest, collection = town
    path = shutil.copytree(honest, tmp_path / "index")
    with np.load(path / "evaluation.npz") as archive:
        arrays = dict(archive)
    stage = next(name for name in arrays if name.startswith("seconds_"))
    np.savez(path / "evaluation.npz", **arrays | {stage: np.array(seconds)})
    with pytest.raises(RetrievalError, match=r"evaluation\.npz is damaged"):
        runs.load_run(indexes.load(path), collection)


@pytest.mark.parametrize("name", ["../0.png", "/0.png", "a\0.png", "a" * 5000])
def test_names_that_no_picture_of_an_index_has(tmp_path, honest, name):
    path = shutil.copytree(honest, tmp_path / "index")
    edit(path / "images.json", lambda images: images[0].update(name=name))
    forge(path)
    with pytest.raises(RetrievalError, match="contradict its manifest"):
        indexes.load(path)


@pytest.mark.parametrize("stored", [np.zeros(4), np.full((1, 4), np.nan), np.ones((1, 4), int)])
def test_descriptors_of_queries_that_are_none(honest, tmp_path, stored):
    path = shutil.copytree(honest, tmp_path / "forged")
    np.save(path / "queries.npy", stored)
    digest = files.digest(path / "queries.npy")
    index = indexes.load(edited(path, lambda m: m["settings"].update(queries_sha256=digest)))
    refused("holds no descriptors; download the features again", queries.query_descriptors, index)


def test_descriptors_of_another_number_of_queries(town, tmp_path):
    _, honest, collection = town
    path = shutil.copytree(honest, tmp_path / "index")
    np.save(path / "queries.npy", np.ones((5, 4), np.float32))
    digest = files.digest(path / "queries.npy")
    index = indexes.load(edited(path, lambda m: m["settings"].update(queries_sha256=digest)))
    refused("has descriptors of 5 queries", queries.rank_queries, index, None, collection)


def test_descriptors_of_queries_without_end(honest, tmp_path):
    """A file of a gigabyte, none of it on the disk, took 2.2 GB, in the app too."""
    path = shutil.copytree(honest, tmp_path / "forged")
    with open(path / "queries.npy", "wb") as file:
        file.truncate(queries.MAX_STORED + 1)
    digest = files.digest(path / "queries.npy")
    index = indexes.load(edited(path, lambda m: m["settings"].update(queries_sha256=digest)))
    refused("cannot be read; download the features again", queries.query_descriptors, index)
