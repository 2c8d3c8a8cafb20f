"""Choose files of Commons: photographs of a landmark under a free licence, with their credits.

Strangers write titles, names and licences, in HTML. Only their text is used; the addresses of
licences and file pages are made here.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from retrieval.collections import credits
from retrieval.collections.commons.site import title_of
from retrieval.collections.credits import Credit
from retrieval.text import one_line

MEDIA = "https://upload.wikimedia.org/"  # where pictures lie; no other place is asked for one
PAGES = "https://commons.wikimedia.org/w/index.php?curid="  # and the page id: short, and stays
LICENCES = ("cc0", "pd", "cc-by", "cc-by-sa")
LEAST_SIDE = 480  # px of the original's shorter side
MAX_VALUE = 10_000  # characters of one value of a file's metadata
MAX_ASPECT = 3  # longer side by shorter side; panoramas have more

# A file with such a word in its name or its categories is no photograph, or shows the landmark from
# inside. Words of the landmark's own name do not count.
_UNWANTED = re.compile(
    r"\b(maps?|plans?|diagrams?|drawings?|sketch(es)?|paintings?|watercolou?rs?|engravings?|"
    r"etchings?|lithographs?|prints?|posters?|postcards?|stamps?|coins?|scans?|scanned|books?|"
    r"manuscripts?|documents?|models?|replicas?|logos?|coats? of arms|collections?|exhibitions?|"
    r"exhibits?|objects|people|portraits?|interiors?|inside|indoors?)\b",
    re.IGNORECASE,
)
# "Views from the Eiffel Tower" do not show the tower.
FROM = re.compile(r"\b(views?|panoramas?) from\b", re.IGNORECASE)
_HOUSEKEEPING = ("Pages ", "Files ", "Images ", "Media ", "Taken ", "Uploaded ")


@dataclass(frozen=True)
class File:
    """A picture that may be downloaded.

    pageid: number of its page on Commons. size: (width, height) in pixels of the picture at
    ``address``. sha1: its SHA-1 in hexadecimal, '' where it is a scaled copy. order: a key to sort
    by, the same each time and unrelated to what the pictures show. landmarks: those that it shows.
    """

    pageid: int
    address: str
    size: tuple[int, int]
    sha1: str
    order: str
    artist: str
    credit: Credit
    landmarks: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> File:
        """Undo ``to_json``. Raises an error for another content, as other addresses or page ids
        than those of Commons: ValueError, LookupError, TypeError or AttributeError.
        """
        # The file may be a stranger's: its addresses are downloaded, its page ids become names.
        size, landmarks = tuple(row["size"]), tuple(row["landmarks"])
        texts = (*landmarks, *(row[key] for key in ("address", "sha1", "order", "artist")))
        if (
            type(row["pageid"]) is not int
            or not all(isinstance(text, str) for text in texts)
            or not row["address"].startswith(MEDIA)
            or [type(side) for side in size] != [int, int]
            or min(size) < 1
        ):
            raise ValueError("no file of Commons")
        credit = credits.checked(row["credit"])
        return cls(**{**row, "size": size, "landmarks": landmarks, "credit": credit})


class LeftOut(Exception):
    """The reason for which a file is left out."""


def judge(page: dict, landmark: str, landmarks: Collection[str], licences: Collection[str]) -> File:
    """The file on a page of ``Site.files``. Raises LeftOut where it may not be used.

    landmarks: all landmarks of the download. licences: some of ``LICENCES``.
    """
    try:
        return _judge(page, landmark, landmarks, licences)
    except (
        *(LookupError, TypeError, ValueError, AttributeError, ArithmeticError),
        AssertionError,  # of HTMLParser, for "<![x["
    ) as error:
        raise LeftOut("its description on Commons is incomplete") from error


def _judge(
    page: dict, landmark: str, landmarks: Collection[str], licences: Collection[str]
) -> File:
    title = title_of(page)
    if not page.get("imageinfo"):
        raise LeftOut("its page has no file")
    info = page["imageinfo"][0]
    meta = info.get("extmetadata") or {}

    def value_of(key: str) -> str:
        value = meta.get(key, {}).get("value", "")
        return (value if isinstance(value, str) else str(value or ""))[:MAX_VALUE]

    _check_picture(info)
    categories = value_of("Categories").split("|")
    of_content = [category for category in categories if not category.startswith(_HOUSEKEEPING)]
    for text in (Path(title).stem, *of_content):
        if word := unwanted(text, landmark):
            raise LeftOut(f"its name or a category of it has the word: {word}")
    if value_of("NonFree") or value_of("DeletionReason"):
        raise LeftOut("Commons doubts its licence")
    kind, licence, licence_url = _licence(value_of("License"))
    if kind not in licences:
        short = _text(value_of("LicenseShortName"))
        raise LeftOut(f"licence: {licence or short or 'cannot be read'}")
    artist = _text(value_of("Artist"))
    author = _text(value_of("Attribution")) or artist
    if not author and kind in ("cc-by", "cc-by-sa"):
        raise LeftOut("its licence asks for the author's name, and Commons gives none")
    if value_of("AuthorCount"):
        author += " and others"
    address, sha1, scaled = info["thumburl"], info["sha1"].lower(), info["thumburl"] != info["url"]
    if not address.startswith(MEDIA) or not re.fullmatch("[!-~]{1,2000}", address):
        raise LeftOut("its address is not one of Commons")
    width = int(info["thumbwidth" if scaled else "width"])
    height = int(info["thumbheight" if scaled else "height"])
    pageid = int(page["pageid"])
    if min(width, height, pageid) < 1 or pageid > 10**12 or not re.fullmatch("[0-9a-f]{40}", sha1):
        raise ValueError
    restrictions = re.sub(r"[^a-z0-9|-]", "", value_of("Restrictions").lower()).replace("|", ", ")
    return File(
        pageid=pageid,
        address=address,
        size=(width, height),
        sha1="" if scaled else sha1,
        order=sha1,
        artist=artist,
        credit=Credit(
            title=title,
            author=author or "author unknown",
            licence=licence,
            licence_url=licence_url,
            page=f"{PAGES}{pageid}",
            note=one_line(f"Other restrictions: {restrictions}") if restrictions else "",
        ),
        landmarks=(landmark, *(name for name in landmarks if name in categories)),
    )


def _check_picture(info: dict) -> None:
    """Raise LeftOut for a file that is not a JPEG, is small, or is a panorama."""
    if info["mime"] != "image/jpeg":
        raise LeftOut("it is not a JPEG")
    width, height = int(info["width"]), int(info["height"])
    if min(width, height) < LEAST_SIDE:
        raise LeftOut(f"its shorter side has fewer than {LEAST_SIDE} pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise LeftOut(f"its longer side is more than {MAX_ASPECT} times the shorter one")


def unwanted(text: str, landmark: str) -> str:
    """The first unwanted word in ``text`` that is not in the landmark's own name; or ''."""
    own = {match[0].lower() for match in _UNWANTED.finditer(landmark)}
    words = (match[0].lower() for match in _UNWANTED.finditer(text))
    return next((word for word in words if word not in own), "")


def _licence(code: str) -> tuple[str, str, str]:
    """Kind, name and address of a licence, from the code that Commons derives; '' if not free.

    The codes are those of the extension CommonsMetadata: cc0, pd, cc-by-sa-3.0-at.
    """
    code = code.strip().lower()
    if code in ("pd", "cc-pd"):
        return "pd", "Public domain", ""
    if code == "cc0":
        return "cc0", "CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/"
    match = re.fullmatch(r"cc-(by|by-sa)-(\d\.\d)(?:-([a-z]{2}|scotland|igo))?", code)
    if not match:
        return "", "", ""
    kind, version, region = match.groups()
    place = f"{region}/" if region else ""
    name = f"CC {kind.upper()} {version}" + (f" {region.upper()}" if region else "")
    return f"cc-{kind}", name, f"https://creativecommons.org/licenses/{kind}/{version}/{place}"


class _Plain(HTMLParser):
    """Collect the text that a browser would show."""

    VOID = frozenset(("area", "br", "col", "embed", "hr", "img", "input", "link", "meta", "wbr"))

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.hidden = 0  # depth in an element that is not shown

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.VOID:
            self.parts.append(" ")
            return
        style = "".join((dict(attrs).get("style") or "").split())
        if self.hidden or tag in ("script", "style") or "display:none" in style:
            self.hidden += 1

    def handle_endtag(self, tag: str) -> None:
        if self.hidden and tag not in self.VOID:
            self.hidden -= 1

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.parts.append(data)


def _text(html: str) -> str:
    parser = _Plain()
    parser.feed(html)
    if not parser.rawdata.startswith("<"):  # of a tag that does not end, nothing is shown
        parser.close()  # which would take the square of the length for it
    return one_line("".join(parser.parts))
