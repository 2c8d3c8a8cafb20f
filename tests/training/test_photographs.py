"""Labels, their split, and what is said where they are missing or wrong."""

import json
import shutil

import numpy as np
import pytest

from retrieval.collections import open_collection
from retrieval.errors import RetrievalError
from retrieval.training import delf, photographs, siamese, sir
from retrieval.training.validation import mean_average_precision


def copy(landmarks, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(landmarks.root, root)
    return root


def test_folders_are_landmarks(landmarks, small):
    photos = photographs.labelled(landmarks)
    assert photos.titles == tuple(f"place_{n:02}" for n in range(12))
    assert len(photos) == 37
    for name, landmark in zip(landmarks.names, photos.landmarks, strict=True):
        title = None if landmark == photographs.NO_LANDMARK else photos.titles[landmark]
        assert title == (None if name == "nothing.png" else name.partition("/")[0])


def test_the_split_is_by_landmark_and_stays_when_one_is_added(landmarks, small, tmp_path):
    photos = photographs.labelled(landmarks)
    training, held_out = photos.split()
    assert sorted([*training, *held_out]) == list(range(37))
    names = photos.landmarks
    assert not set(names[training]) & set(names[held_out])
    assert len(set(names[held_out])) >= 2
    assert photographs.NO_LANDMARK in names[training]
    # Another landmark moves none of the others across.
    root = copy(landmarks, tmp_path)
    shutil.copytree(root / "place_00", root / "zoo")
    more = photographs.labelled(open_collection(root))
    before = {photos.titles[n] for n in names[held_out]}
    after = {more.titles[n] for n in more.landmarks[more.split()[1]]}
    assert before - {"zoo"} == after - {"zoo"} or len(before) == 2


def test_too_few_landmarks_to_hold_some_out_are_refused(landmarks):
    with pytest.raises(RetrievalError, match="too few landmarks"):
        photographs.labelled(landmarks)  # none has eight pictures


def test_labels_from_a_file(landmarks, small, tmp_path):
    root = copy(landmarks, tmp_path)
    names = landmarks.names
    entries = {name: {"landmark": "abcd"[n % 4] if n % 5 else None} for n, name in enumerate(names)}
    (root / "labels.json").write_text(json.dumps({"images": entries}))
    photos = photographs.labelled(open_collection(root))
    assert photos.titles == tuple("abcd")
    assert (photos.landmarks == np.where(np.arange(37) % 5, np.arange(37) % 4, -1)).all()
    for damaged, message in [
        ("[]", "cannot be used"),
        ("{", "cannot be used"),
        (json.dumps({"images": {}}), f"no entry for '{names[0]}'; add one"),
        (json.dumps({}), "cannot be used"),
        (json.dumps({"images": {name: {} for name in names}}), "cannot be used"),
        (json.dumps({"images": {name: {"landmark": 3} for name in names}}), "cannot be used"),
        (json.dumps({"images": {name: [] for name in names}}), "cannot be used"),
    ]:
        (root / "labels.json").write_text(damaged)
        with pytest.raises(RetrievalError, match=message):
            photographs.labelled(open_collection(root))


def test_single_pictures_missing_labels_and_few_pictures_are_refused(landmarks, tmp_path):
    root = copy(landmarks, tmp_path)
    (root / "place_00" / "0.png").unlink()
    (root / "place_00" / "1.png").unlink()
    with pytest.raises(RetrievalError, match=r"1 landmarks have only one picture.*place_00"):
        photographs.labelled(open_collection(root))
    flat = tmp_path / "flat"
    flat.mkdir()
    for n, name in enumerate(landmarks.names[:20]):
        shutil.copy(landmarks.path(name), flat / f"{n}.png")
    assert photographs.labelled(open_collection(flat)) is None
    with pytest.raises(RetrievalError, match="has no labels"):
        photographs.require_labels(open_collection(flat))
    (flat / "0.png").unlink()
    with pytest.raises(RetrievalError, match="at least 20"):
        photographs.labelled(open_collection(flat))


def test_the_digest_changes_with_a_picture(landmarks, small, tmp_path):
    root = copy(landmarks, tmp_path)
    photos = photographs.labelled(open_collection(root))
    before = photos.digest()
    assert before == photographs.labelled(landmarks).digest()
    shutil.copy(root / "place_03" / "1.png", root / "place_03" / "2.png")
    assert photos.digest() != before


def test_groups_that_geometry_found_become_landmarks(landmarks):
    plain = photographs.unlabelled(landmarks)
    assert (plain.landmarks == photographs.NO_LANDMARK).all()
    groups = np.arange(37)
    groups[[4, 9, 11]] = 50
    groups[[20, 21]] = 60
    photos = photographs.grouped(plain, groups)
    assert photos.titles == (landmarks.names[4], landmarks.names[20])
    assert np.flatnonzero(photos.landmarks == 0).tolist() == [4, 9, 11]
    assert np.flatnonzero(photos.landmarks == 1).tolist() == [20, 21]
    assert (photos.landmarks == photographs.NO_LANDMARK).sum() == 32


def test_mean_average_precision_by_hand():
    # a a b b on a line: a1 finds a2 first; a2 finds b1 first, then a1; and so on.
    angles = np.deg2rad([0, 50, 80, 100])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    # Trapezoids: first 1; second rank (0 + 1/2) / 2 = 1/4.
    found = mean_average_precision(vectors, np.array([0, 0, 1, 1]))
    assert found == pytest.approx((1 + 0.25 + 1 + 1) / 4)


def test_a_picture_that_is_gone_is_named_with_its_folder(landmarks, tmp_path):
    """Twelve pictures here are called 1.png."""
    root = copy(landmarks, tmp_path)
    photos = photographs.unlabelled(open_collection(root))
    gone = root / "place_03" / "1.png"
    gone.unlink()
    with pytest.raises(RetrievalError, match=r"^place_03/1\.png cannot be read"):
        photos.read(photos.collection.names.index("place_03/1.png"))


@pytest.mark.parametrize("trainer", [sir, siamese, delf])
def test_trainings_are_known_by_their_pictures(landmarks, small, tmp_path, monkeypatch, trainer):
    """Or one that was stopped would go on with others."""
    stated = []

    def journal(out, identity):
        stated.append(identity["pictures"])
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "Journal", journal)
    root = shutil.copytree(landmarks.root, tmp_path / "pictures")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            trainer.train(open_collection(root), tmp_path / "net.pth")
        shutil.copy(root / "place_01" / "0.png", root / "place_02" / "0.png")
    assert stated[0] != stated[1]
