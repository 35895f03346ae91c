"""The Python client of a reckg server."""

from __future__ import annotations

from serving.client.attributes import item_filter
from serving.client.client import RecommenderClient

__all__ = ["RecommenderClient", "item_filter"]
