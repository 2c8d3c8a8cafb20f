"""What to download from Wikimedia Commons."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.collections.commons.choice import LICENCES

BYTES_EACH, SECONDS_EACH = 300_000, 1.5  # of a picture; guesses for ``plan``, not measured


@dataclass(frozen=True)
class Order:
    """What to download.

    categories: names on Commons, without ``Category:``; each is a landmark. per: pictures of each.
    depth: levels of subcategories that are searched; 0 is the category alone.
    licences: some of ``LICENCES``.
    """

    categories: tuple[str, ...]
    per: int = 60
    depth: int = 1
    licences: tuple[str, ...] = LICENCES

    @property
    def pictures(self) -> int:
        """The largest number of pictures that may come."""
        return len(self.categories) * self.per

    @property
    def plan(self) -> str:
        """A sentence about the pictures, megabytes and minutes to expect."""
        megabytes = round(self.pictures * BYTES_EACH / 1e7) * 10
        minutes = max(1, round(self.pictures * SECONDS_EACH / 60))
        return f"up to {self.pictures:,} photographs: roughly {megabytes} MB and {minutes} minutes"
