"""The Python client of a reckg server."""

from __future__ import annotations

from serving.client.client import RecommenderClient, item_filter

__all__ = ["RecommenderClient", "item_filter"]
