"""Which files of Commons are photographs of a landmark that may be used, and whom to name for them.

Titles, names and licences are written by strangers, in HTML. Only text is taken from them;
addresses of licences and file pages are put together here.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from retrieval.collections.commons.site import title_of
from retrieval.collections.credits import Credit, one_line

MEDIA = "https://upload.wikimedia.org/"  # where pictures lie; no other place is asked for one
PAGES = "https://commons.wikimedia.org/w/index.php?curid="  # and the page id: short, and stays
LICENCES = ("cc0", "pd", "cc-by", "cc-by-sa")
LEAST_SIDE = 480  # px of the original's shorter side
MAX_SAID = 10_000  # characters of one thing that is said of a file
LONGEST = 3  # times as wide as high, or the other way round: beyond that it is a panorama

# Words that say: no photograph, or not of the landmark from outside. In names of files and of the
# categories they are in, unless the category that was asked for has the word itself.
_UNWANTED = re.compile(
    r"\b(maps?|plans?|diagrams?|drawings?|sketch(es)?|paintings?|watercolou?rs?|engravings?|"
    r"etchings?|lithographs?|prints?|posters?|postcards?|stamps?|coins?|scans?|scanned|books?|"
    r"manuscripts?|documents?|models?|replicas?|logos?|coats? of arms|collections?|exhibitions?|"
    r"exhibits?|objects|people|portraits?|interiors?|inside|indoors?)\b",
    re.IGNORECASE,
)
# "Views from the Eiffel Tower" show something else.
FROM = re.compile(r"\b(views?|panoramas?) from\b", re.IGNORECASE)
_HOUSEKEEPING = ("Pages ", "Files ", "Images ", "Media ", "Taken ", "Uploaded ")


@dataclass(frozen=True)
class File:
    """A picture that may be taken. size: (width, height) of what ``address`` gives.

    sha1: hex digest of what ``address`` gives, '' where that is a scaled copy.
    order: sorts files evenly and the same way every time. landmarks: those it belongs to.
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
        """Raises ValueError for what ``judge`` would not give: it would be fetched and written."""
        if type(row["pageid"]) is not int or not str(row["address"]).startswith(MEDIA):
            raise ValueError("no file of Commons")
        tuples = {key: tuple(row[key]) for key in ("size", "landmarks")}
        return cls(**{**row, **tuples, "credit": Credit(**row["credit"])})


class LeftOut(Exception):
    """Why a file is not taken."""


def judge(page: dict, landmark: str, landmarks: Collection[str], licences: Collection[str]) -> File:
    """A page of ``Site.files`` as a file that may be taken. LeftOut where it may not.

    landmarks: all that are asked for. licences: some of ``LICENCES``.
    """
    try:
        return _judge(page, landmark, landmarks, licences)
    except (
        *(LookupError, TypeError, ValueError, AttributeError, ArithmeticError),
        AssertionError,  # of HTMLParser, for "<![x["
    ) as error:
        raise LeftOut("its description is incomplete") from error


def _judge(
    page: dict, landmark: str, landmarks: Collection[str], licences: Collection[str]
) -> File:
    title = title_of(page)
    if not page.get("imageinfo"):
        raise LeftOut("there is no file")
    info = page["imageinfo"][0]
    meta = info.get("extmetadata") or {}

    def said(key: str) -> str:
        value = meta.get(key, {}).get("value", "")
        return (value if isinstance(value, str) else str(value or ""))[:MAX_SAID]

    if info["mime"] != "image/jpeg":
        raise LeftOut("no photograph: another format than JPEG")
    width, height = int(info["width"]), int(info["height"])
    if min(width, height) < LEAST_SIDE:
        raise LeftOut("too small")
    if max(width, height) > LONGEST * min(width, height):
        raise LeftOut("a panorama")
    categories = said("Categories").split("|")
    told = [one for one in categories if not one.startswith(_HOUSEKEEPING)]
    for text in (Path(title).stem, *told):
        if word := unwanted(text, landmark):
            raise LeftOut(f"no view of it from outside: {word}")
    if said("NonFree") or said("DeletionReason"):
        raise LeftOut("its licence is doubted on Commons")
    kind, licence, licence_url = _licence(said("License"))
    if kind not in licences:
        short = _text(said("LicenseShortName"))
        raise LeftOut(f"licence: {licence or short or 'cannot be read'}")
    artist = _text(said("Artist"))
    author = _text(said("Attribution")) or artist
    if not author and kind in ("cc-by", "cc-by-sa"):
        raise LeftOut("nobody is named whom the licence wants named")
    if said("AuthorCount"):
        author += " and others"
    address, sha1, scaled = info["thumburl"], info["sha1"].lower(), info["thumburl"] != info["url"]
    if not address.startswith(MEDIA) or not re.fullmatch("[!-~]{1,2000}", address):
        raise LeftOut("it lies on another site")
    if scaled:
        width, height = int(info["thumbwidth"]), int(info["thumbheight"])
    pageid = int(page["pageid"])
    if min(width, height, pageid) < 1 or pageid > 10**12 or not re.fullmatch("[0-9a-f]{40}", sha1):
        raise ValueError
    restrictions = re.sub(r"[^a-z0-9|-]", "", said("Restrictions").lower()).replace("|", ", ")
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
        landmarks=(landmark, *(one for one in landmarks if one in categories)),
    )


def unwanted(text: str, landmark: str) -> str:
    """The first unwanted word in ``text`` that the landmark's own name does not have; or ''."""
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
    """Collects the text that a reader of the HTML would see."""

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
