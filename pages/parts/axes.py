"""Font sizes of charts, large enough to be read from the back of a lecture hall."""

from typing import Any

# Of the axes of an Altair chart, in pixels.
READABLE: dict[str, Any] = {"labelFontSize": 14, "titleFontSize": 14}
