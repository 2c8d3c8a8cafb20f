"""Photographs of landmarks from Wikimedia Commons, by category, with authors and licences."""

from retrieval.collections.commons.choice import LICENCES
from retrieval.collections.commons.collect import download
from retrieval.collections.commons.order import Order
from retrieval.collections.commons.presets import PRESETS

__all__ = ["LICENCES", "PRESETS", "Order", "download"]
