"""What is asked of Wikimedia Commons."""

from __future__ import annotations

from dataclasses import dataclass

from retrieval.collections.commons.choice import LICENCES

# Guesses, not measurements: for a plan before anything is known.
BYTES_EACH, SECONDS_EACH = 300_000, 1.5


@dataclass(frozen=True)
class Order:
    """What is asked for.

    categories: of Commons, without ``Category:``; each is a landmark. per: pictures of each.
    depth: how far down subcategories are looked into; 0 is the category alone.
    licences: some of ``LICENCES``.
    """

    categories: tuple[str, ...]
    per: int = 60
    depth: int = 1
    licences: tuple[str, ...] = LICENCES

    @property
    def pictures(self) -> int:
        """As many as there may be."""
        return len(self.categories) * self.per

    @property
    def plan(self) -> str:
        """What it will take, as words."""
        megabytes = round(self.pictures * BYTES_EACH / 1e7) * 10
        minutes = max(1, round(self.pictures * SECONDS_EACH / 60))
        return f"up to {self.pictures:,} photographs: roughly {megabytes} MB and {minutes} minutes"
