"""The description of an index in Milvus: the properties of its collection.

They hold the manifest of the exported index and the fields of ``Extra``. The collection has one row
a picture:

    position        INT64, primary key: the place in the index that was exported
    name, sha256    VARCHAR; width, height INT64
    vector          FLOAT_VECTOR: the float16 descriptor of the index, unit length
    anything else   metadata of the picture, to filter with
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from retrieval.errors import RetrievalError
from retrieval.index import checks, milvus
from retrieval.index.milvus import Address

FORMAT = 1
MANIFEST, EXTRA = "retrieval.manifest", "retrieval.extra"  # properties of a collection
FIELDS = ("position", "name", "sha256", "width", "height", "vector")


@dataclass(frozen=True)
class Extra:
    """The properties of a collection besides its manifest.

    alias: the one that an export made the collection for. nearest: similarity of some pictures to
    their nearest, see ``neighbours.nearest_sample``. pictures: whether the index was made of
    pictures. folder: of the exported index, beside which local features may lie.
    """

    alias: str
    nearest: list[float]
    pictures: bool
    folder: str

    @classmethod
    def read(cls, text: str) -> Extra:
        """From what ``write`` gives. Raises ValueError for anything else."""
        data = json.loads(text)
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise ValueError("another format")
        try:
            extra = cls(**data)
        except TypeError as error:
            raise ValueError("other fields") from error
        valid = (
            isinstance(extra.alias, str)
            and isinstance(extra.nearest, list)
            and all(isinstance(value, float) and abs(value) <= 2 for value in extra.nearest)
            and isinstance(extra.pictures, bool)
            and isinstance(extra.folder, str)
            and _can_be_looked_for(extra.folder)
        )
        if not valid:
            raise ValueError("other values")
        return extra

    def write(self) -> str:
        return json.dumps({"format": FORMAT, **vars(self)})


def _can_be_looked_for(folder: str) -> bool:
    """Whether the system takes the paths of a folder and of what lies beside it.

    Raises UnicodeEncodeError where it is no text.
    """
    path = os.fsencode(f"{folder}.xfeat")
    return len(path) < 4000 and max(map(len, path.split(b"/"))) <= 255


@dataclass(frozen=True)
class Description:
    """The collection behind an address.

    collection: its own name, not the alias. width: how many numbers a vector has.
    """

    collection: str
    manifest: dict[str, Any]
    extra: Extra
    width: int


def raw_description(address: Address) -> dict[str, Any]:
    """The server's own description of the collection behind an address, unchecked.

    Raises AbsentError where there is none.
    """
    return milvus.call(
        address,
        lambda client, time: client.describe_collection(address.collection, timeout=time),
        milvus.PATIENCE,
    )


def alias_of(raw: dict[str, Any]) -> str | None:
    """The alias that an export made a collection for; None where this program did not make it.

    raw: its description, as the server gives it.
    """
    try:
        return json.loads(raw["properties"][EXTRA])["alias"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def not_ours(address: Address) -> RetrievalError:
    return RetrievalError(
        f"{address} is not an index of this program, or one of another version; export to another "
        "name, or drop that collection first."
    )


def describe(address: Address) -> Description:
    """The index behind an address, its properties checked. Raises RetrievalError for no index."""
    raw = raw_description(address)
    properties = raw.get("properties") or {}
    fields = {field["name"]: field for field in raw["fields"]}
    if MANIFEST not in properties or EXTRA not in properties or not fields.keys() >= set(FIELDS):
        raise not_ours(address)
    try:
        manifest = json.loads(properties[MANIFEST])
        extra = Extra.read(properties[EXTRA])
        width = int(fields["vector"]["params"]["dim"])
        if not fields["position"].get("is_primary") or width < 1:
            raise ValueError("another primary key, or vectors of no numbers")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise not_ours(address) from error
    checks.check_manifest(manifest, address)
    # Without the similarity of any picture no answer could be compared with what is usual.
    lacks_nearest = manifest["pictures"] > 1 and not extra.nearest
    if manifest["kind"] != "global" or manifest["pictures"] < 1 or lacks_nearest:
        raise not_ours(address)
    return Description(raw["collection_name"], manifest, extra, width)
