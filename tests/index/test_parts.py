"""An index made of parts is the index that one build makes."""

import json
import shutil

import numpy as np
import pytest
from attack.indexes import edited, forge
from PIL import Image
from stubs import Grid, Thumbnail, paint, refused

from retrieval import cli, index
from retrieval.collections import open_collection
from retrieval.index import loading
from retrieval.index.layout import Part

TIMES = ("made", "seconds", "sha256")  # of a manifest; its checksum is over the times too


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Twelve pictures: one is none, one cannot be read and two have no local features."""
    root = tmp_path_factory.mktemp("parts") / "pictures"
    for seed in range(9):
        paint(root / f"{seed}.png", seed, (40 + seed, 30))
    for name in ("3 blank.png", "8.png"):
        Image.new("RGB", (50, 40), "grey").save(root / name)
    (root / "0.jpg").write_text("<html></html>")
    (root / "5 empty.png").write_bytes(b"")
    return root


def make(pictures, out, method, count=3):
    """Folders of all parts."""
    collection = open_collection(pictures)
    for number in range(1, count + 1):
        index.build(collection, method, out / f"{number}", part=Part(number, count))
    return [out / f"{number}" for number in range(1, count + 1)]


def contents(path):
    """Every byte of an index, without the times of its manifest."""
    files = {file.name: file.read_bytes() for file in path.iterdir()}
    manifest = json.loads(files["manifest.json"])
    assert manifest.keys() >= set(TIMES)
    return files | {"manifest.json": {k: v for k, v in manifest.items() if k not in TIMES}}


@pytest.mark.parametrize("count", [1, 3, 20])
@pytest.mark.parametrize("method", [Thumbnail, Grid])
def test_merged_equals_whole(pictures, tmp_path, method, count):
    parts = make(pictures, tmp_path / "parts", method(), count)
    merged = index.merge(parts[::-1], tmp_path / "merged")
    whole = index.build(open_collection(pictures), method(), tmp_path / "whole")
    assert len(whole) == 10
    assert len(whole.manifest["skipped"]) == 2
    assert merged.part == whole.part == Part(1, 1)
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")
    assert list((tmp_path / "merged").iterdir())
    assert not list(tmp_path.glob("*.building"))


def test_merged_with_the_words_of_another(pictures, tmp_path):
    words = np.random.default_rng(0).random((7, 4), np.float32)
    parts = make(pictures, tmp_path / "parts", Grid())
    index.merge(parts, tmp_path / "merged", words)
    index.build(open_collection(pictures), Grid(), tmp_path / "whole", codebook=words)
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")


def test_a_part_goes_on_and_is_updated(pictures, tmp_path):
    class Stopping(Thumbnail):
        def describe(self, picture, box=None):
            if len(self.described) == 2:
                raise KeyboardInterrupt
            return super().describe(picture, box)

    collection, part = open_collection(pictures), Part(2, 2)
    with pytest.raises(KeyboardInterrupt):
        index.build(collection, Stopping(), tmp_path / "2", part=part)
    method = Thumbnail()
    made = index.build(collection, method, tmp_path / "2", part=part)
    assert len(made) == len(method.described) + 2
    method = Thumbnail()
    index.build(collection, method, tmp_path / "2", part=part)
    assert method.described == []


def test_a_part_without_pictures_is_made_again(tmp_path):
    """Of one picture in two parts, the command of the first said that it is of other pictures."""
    paint(tmp_path / "pictures" / "a.png", 1)
    for _ in range(2):
        first, second = make(tmp_path / "pictures", tmp_path / "parts", Thumbnail(), 2)
    assert len(loading.load(first, part=True)) == 0
    assert index.merge([first, second], tmp_path / "merged").names == ("a.png",)


@pytest.fixture(scope="module")
def parts(pictures, tmp_path_factory):
    return make(pictures, tmp_path_factory.mktemp("made"), Thumbnail())


def test_parts_that_are_not_all_of_one_whole(pictures, parts, tmp_path):
    out = tmp_path / "out"
    again = shutil.copytree(parts[0], tmp_path / "again")
    of_many = edited(
        shutil.copytree(parts[0], tmp_path / "many"), lambda m: m["part"].update(parts=10**12)
    )
    refused("missing: 2, 3, .*, 21, …", index.merge, [of_many], out)
    refused("parts these are missing: 2, 3", index.merge, parts[:1], out)
    refused("are both part 1 of 3; leave one out", index.merge, [*parts, again], out)
    four = make(pictures, tmp_path / "four", Thumbnail(), 4)
    refused("not parts of the same list", index.merge, [four[0], *parts[1:]], out)
    paint(tmp_path / "others" / "x.png", 5)
    others = make(tmp_path / "others", tmp_path / "theirs", Thumbnail())
    refused("not parts of the same list", index.merge, [*parts[:2], others[2]], out)
    larger = make(pictures, tmp_path / "larger", Thumbnail(size=9))
    refused("made with different settings", index.merge, [*parts[:2], larger[2]], out)
    local = make(pictures, tmp_path / "local", Grid())
    refused("made with different method", index.merge, [*parts[:2], local[2]], out)
    refused("There is no index in", index.merge, [tmp_path / "nowhere"], out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["checkpoint"].update(sha256="cd" * 32), "made with different checkpoint"),
        (lambda m: m["versions"].update(torch="1.0"), "made with different library versions"),
        (lambda m: m["skipped"][0].update(name="8.png"), "is in more than one part"),
        (lambda m: m.update(part={"number": 4, "parts": 3}), "edited or damaged"),
        (lambda m: m.update(part={"number": "1", "parts": 3}), "edited or damaged"),
        (lambda m: m.update(part={"number": 1}), "these are missing|not parts of the same"),
        (lambda m: m.update(part=[1, 3]), "edited or damaged"),
        (lambda m: m.update(part=None), "edited or damaged"),
    ],
)
def test_edited_parts(parts, tmp_path, change, words):
    theirs = edited(shutil.copytree(parts[0], tmp_path / "theirs"), change)
    refused(words, index.merge, [theirs, *parts[1:]], tmp_path / "out")


@pytest.mark.parametrize("width", [0, 65])
def test_parts_whose_descriptors_have_no_numbers(pictures, tmp_path, width):
    """FAISS ended the process."""
    parts = make(pictures, tmp_path / "parts", Grid())
    for part in parts:
        array = np.load(part / "descriptors.npy")
        np.save(part / "descriptors.npy", np.resize(array, (len(array), width)))
        forge(part)
    refused("contradict its manifest", index.merge, parts, tmp_path / "out")


def test_a_part_is_no_index_and_an_index_no_part(pictures, parts, tmp_path):
    collection = open_collection(pictures)
    refused("is part 1 of 3 of an index; merge all parts", index.load, parts[0])
    whole = index.build(collection, Thumbnail(), tmp_path / "whole").path
    refused("is a whole index", index.merge, [*parts[:2], whole], tmp_path / "out")
    refused("is a whole", index.build, collection, Thumbnail(), whole, part=Part(1, 3))
    refused("is part 1 of 3 of", index.build, collection, Thumbnail(), parts[0])
    refused("is part 1 of 3, not part 2 of 3; choose another place",
            index.build, collection, Thumbnail(), parts[0], part=Part(2, 3))  # fmt: skip
    assert loading.load(parts[0], part=True).part == Part(1, 3)


def test_nothing_can_be_read(tmp_path):
    (tmp_path / "bad").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "bad" / name).write_text("no picture")
    made = make(tmp_path / "bad", tmp_path / "parts", Grid())
    refused("No picture of bad could be read, of 2. The first: a.jpg",
            index.merge, made, tmp_path / "out")  # fmt: skip


def test_parts_and_merge_on_the_command_line(folder, tmp_path, capsys):
    index_command = ["index", str(folder), "--method", "sir", "--size", "64"]
    for number in (1, 2):
        part = ["--part", f"{number}/2", "--out", str(tmp_path / "parts" / f"{number}")]
        assert cli.main([*index_command, *part]) == 0
        assert f", part {number} of 2 (" in capsys.readouterr().out
    parts = [str(path) for path in sorted((tmp_path / "parts").iterdir())]
    assert cli.main(["merge", *parts, "--out", str(tmp_path / "merged")]) == 0
    assert capsys.readouterr().out.startswith(f"6 pictures in {tmp_path / 'merged'} (")
    assert cli.main([*index_command, "--out", str(tmp_path / "whole")]) == 0
    assert contents(tmp_path / "merged") == contents(tmp_path / "whole")
    for wrong in ("0/2", "3/2", "1", "a/b"):
        with pytest.raises(SystemExit):
            cli.main([*index_command, "--part", wrong, "--out", str(tmp_path / "x")])
        assert "is not a part of a whole" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([*index_command, "--part", "1/2"])
    assert "needs a place: --out INDEX" in capsys.readouterr().err


def test_merging_where_a_build_is_unfinished(pictures, parts, tmp_path):
    """What it has described, perhaps for hours, was deleted."""

    class Stopping(Thumbnail):
        def describe(self, picture, box=None):
            if len(self.described) == 2:
                raise KeyboardInterrupt
            return super().describe(picture, box)

    out = tmp_path / "one"
    with pytest.raises(KeyboardInterrupt):
        index.build(open_collection(pictures), Stopping(), out)
    refused("keeps the pictures of an unfinished build", index.merge, parts, out)
    method = Thumbnail()
    whole = index.build(open_collection(pictures), method, out)
    assert len(method.described) == len(whole) - 2


def test_an_index_of_other_pictures_is_not_replaced_by_a_merge(parts, tmp_path):
    paint(tmp_path / "others" / "other.png", 1)
    index.build(open_collection(tmp_path / "others"), Thumbnail(), tmp_path / "out")
    before = contents(tmp_path / "out")
    refused("is an index of other pictures", index.merge, parts, tmp_path / "out")
    assert contents(tmp_path / "out") == before
