"""The table beside the pictures, which may be anybody's."""

import json

import pytest
from PIL import Image

from retrieval.collections import metadata, metadata_filter, open_collection
from retrieval.errors import RetrievalError

NAMES = ("a.png", "b.png", "deep/c.png")
CSV = """File,landmark,year,zip,Shot at
a.png,chapel,1900,007,
b.png,hall,1950,012,f/2.8
c.png,,,1,
"""


@pytest.fixture
def folder(tmp_path):
    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    return tmp_path


def test_a_table_is_read_with_the_pictures(folder):
    (folder / "metadata.csv").write_text(CSV, "utf-8-sig")
    assert open_collection(folder).metadata == {
        "a.png": {"landmark": "chapel", "year": 1900, "zip": "007"},
        "b.png": {"landmark": "hall", "year": 1950, "zip": "012", "Shot_at": "f/2.8"},
        "deep/c.png": {"zip": "1"},  # by its file, as there is one of that name
    }


def test_pictures_are_found_by_the_end_of_their_path():
    """In a zip of folders every picture has the zip's name before its path."""
    names = ["zip/trip/x/a.jpg", "zip/trip/y/a.jpg", "zip/trip/y/b.jpg"]
    table = {"x/a.jpg": {"n": 1}, "y/a.jpg": {"n": 2}, "a.jpg": {"n": 3}, "b.jpg": {"n": 4}}
    assert metadata.of_pictures(table, names) == {
        name: {"n": n} for name, n in zip(names, (1, 2, 4), strict=True)
    }
    table = {"b.jpg": {"n": 4}, "trip/y/b.jpg": {"n": 5}, "oy/b.jpg": {"n": 6}}
    assert metadata.of_pictures(table, names) == {names[2]: {"n": 5}}  # the longest
    table = {"a.jpg": {"n": 1}, "x/a.jpg": {}}
    assert metadata.of_pictures(table, ["x/a.jpg", "y/a.jpg"]) == {}  # which of the two?
    assert metadata.of_pictures(table, ["x/a.jpg", "a.jpg"]) == {"a.jpg": {"n": 1}}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_cells_are_separated_as_spreadsheets_do(folder, separator):
    """A table with semicolons was refused, as if it had no column called name."""
    text = CSV.replace(",", separator).replace("\n", "\r\n")
    (folder / "metadata.csv").write_text(text, "utf-8-sig", newline="")
    assert open_collection(folder).metadata["a.png"]["landmark"] == "chapel"
    other = {",": ";", ";": ",", "\t": ","}[separator]
    (folder / "metadata.csv").write_text(f"name{separator}a{other}b\na.png{separator}1{other}5\n")
    assert open_collection(folder).metadata == {"a.png": {"a_b": f"1{other}5"}}


@pytest.mark.parametrize("form", ["list", "by name"])
def test_json_is_read_as_a_list_or_by_name(folder, form):
    table = {"a.png": {"year": 1900.5, "note": None, "deep": [1]}, "b.png": {"year": 2}}
    if form == "list":
        table = [{"filename": name, **values} for name, values in table.items()]
    (folder / "metadata.json").write_text(json.dumps(table))
    assert open_collection(folder).metadata == {"a.png": {"year": 1900.5}, "b.png": {"year": 2.0}}


def test_the_town_knows_what_was_rendered():
    town = open_collection("town")
    assert town.metadata["belltower_003.jpg"]["landmark"] == "belltower"
    columns = metadata.choices(town.metadata)
    assert columns["light"] == ["dusk", "evening", "noon", "overcast"]
    assert columns["view"] == ["detail", "far", "house", "part", "sky", "street", "whole"]
    assert "distance_in_metres" not in columns  # as good as every picture has another


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("metadata.csv", b"a,b\n1,2\n", "needs a column called name"),
        ("metadata.csv", b"name,a\nx.png,1,2,3\n", "is no table"),
        ("metadata.csv", b"name,a,a\nx.png,1,2\n", "is no table"),
        ("metadata.csv", b"name,a\nx.png,1\nx.png,2\n", "x.png twice"),
        ("metadata.csv", b"name,a b,a-b\nx.png,1,2\n", "two columns of the same name"),
        ("metadata.csv", b"\xff\xfe\x00", "is no table"),
        ("metadata.csv", b"name,a\n", None),
        ("metadata.json", b"[" * 100_000, "is no table"),
        ("metadata.json", b'{"a.png": 3}', "is no table"),
        ("metadata.json", b"7", "is no table"),
        ("metadata.csv", b"name\n" + b"x" * 16_000_001, "more than 16 MB"),
    ],
)
def test_damaged_tables_are_refused_in_one_sentence(folder, name, content, words):
    (folder / name).write_bytes(content)
    if words is None:
        assert open_collection(folder).metadata == {}
        return
    with pytest.raises(RetrievalError, match=words):
        open_collection(folder)


def test_text_is_cut_to_one_plain_line(folder):
    text = "<b>=1+1\u202e\n" + "x" * 1000
    (folder / "metadata.json").write_text(json.dumps([{"name": "a.png", "note": text}]))
    note = open_collection(folder).metadata["a.png"]["note"]
    assert note.startswith("<b>=1+1 xxx")
    assert len(note) == 300


def test_short_lines_that_take_many_places(folder):
    """Each line of two bytes became fifty cells: 16 MB of them took 9 GB."""
    columns = ",".join(["name", *(f"c{n}" for n in range(49))])
    (folder / "metadata.csv").write_text(f"{columns}\n" + "x\n" * 40_001)
    with pytest.raises(RetrievalError, match="more than 2,000,000 cells"):
        metadata.read_table(folder / "metadata.csv")
    (folder / "metadata.csv").write_text(
        "".join(f"c{n}," for n in range(300_000)) + "name\nx\n" * 9
    )
    with pytest.raises(RetrievalError, match="more than 50 columns"):
        metadata.read_table(folder / "metadata.csv")


def test_there_is_one_zero(folder):
    """height in [0.0] found 32 pictures in the folder and 15 in milvus-lite."""
    (folder / "metadata.csv").write_text("name,height\na.png,-0.0\nb.png,0.5\n")
    known = open_collection(folder).metadata
    assert str(known["a.png"]["height"]) == "0.0"
    assert metadata_filter.for_store("height in [-0.0]") == "height in [0.0]"


def test_numbers_as_other_programs_write_them(folder):
    """Of 394 random numbers 17 had eighteen decimals: all became text, and score < 0.5 fitted none.

    So did a column in which R or NumPy wrote NA or nan for a missing number.
    """
    (folder / "metadata.csv").write_text(
        "name,score,p,year,country\n"
        "a.png,0.016527635528529094,3.1e-105,1900,DE\n"
        "b.png,0.002738500170148095,1e+05,NA,NA\n"
        "c.png,nan,0.5,1950,FR\n"
    )
    known = open_collection(folder).metadata
    assert metadata_filter.matching(known, "score < 0.01") == {"b.png"}
    assert metadata_filter.matching(known, "p < 1e-100") == {"a.png"}
    assert metadata_filter.matching(known, "year >= 1900") == {"a.png", "deep/c.png"}
    assert "year" not in known["b.png"]
    assert known["b.png"]["country"] == "NA"  # among texts it is one
    (folder / "metadata.csv").write_text("name,continent\na.png,NA\nb.png,NA\n")
    known = open_collection(folder).metadata
    assert metadata_filter.matching(known, 'continent == "NA"') == {"a.png", "b.png"}
