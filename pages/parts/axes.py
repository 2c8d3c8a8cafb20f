"""Font sizes of charts, large enough to be read from the back of a lecture hall.

This is imported before a chart is made, but not with the first page, as pandas takes half a second.
"""

from importlib import import_module
from typing import Any

# Altair uses the pandas that it finds in ``sys.modules``. Where another thread is not done with
# importing that, no chart could be made; this waits for it.
import_module("pandas")

# Of the axes of an Altair chart, in pixels.
READABLE: dict[str, Any] = {"labelFontSize": 14, "titleFontSize": 14}
