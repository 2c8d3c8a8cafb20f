"""How large the words of charts are: to be read from the last row of a lecture hall."""

from typing import Any

# Of the axes of an Altair chart, in pixels.
READABLE: dict[str, Any] = {"labelFontSize": 14, "titleFontSize": 14}
