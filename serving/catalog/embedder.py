"""The embedder: the one process that loads the text encoder, and embeds upserted items for all workers.

    python -m serving.catalog.embedder --bundle run/bundle [--config server.toml]

It reads JSON lines: ``{"settings": {...}}``, as the settings of the server, and ``{"bundle": "PATH"}``: from now on
for this bundle, and for those that variants of an experiment name; once everything is embedded for it, it prints
``{"embedded": VERSION, "items": N}``. It ends with its input. It loads the encoder at once, which takes seconds: no
item waits for it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from reckg.bundle.bundle import Bundle, load_bundle
from reckg.bundle.store import resolve
from reckg.errors import DataError, ReckgError
from reckg.live.embed_items import NewItemEmbedder, items_table
from serving.monitoring.logs import log_to_stderr
from serving.services.item_messages import item_kinds
from serving.settings import ServerSettings, read_settings
from serving.store import CatalogChange, EmbeddedItem, StateStore, StoreError
from serving.store.open_store import open_store

POLL_S = 0.1
PAUSE_S = 1.0  # after the store did not answer
AT_ONCE = 32  # items that are embedded in one call
NICE = 5  # with --nice

logger = logging.getLogger("reckg.serving")


class Embedder:
    """Embeds the upserted items of a store for one bundle. One that holds nothing to embed with embeds none."""

    def __init__(self, bundle: Bundle, store: StateStore) -> None:
        self.bundle, self.store = bundle, store
        self.new_items = None if bundle.inductive is None else NewItemEmbedder(bundle)
        self.revision = 0  # up to which everything is embedded
        self.items = 0  # that were embedded, or were already

    def catch_up(self) -> int:
        """Embeds what waits, by rising revision; returns how many items. Raises StoreError: it goes on next time."""
        if self.new_items is None or self.store.catalog_revision() == self.revision:
            return 0
        changes = self.store.catalog_changes(self.revision)
        upserts = [c for c in changes if c.kind == "upsert" and c.item_id not in self.bundle.item_ids]
        there = self.store.embedded(self.bundle.version, [change.item_id for change in upserts]) if upserts else []
        known = {(item.item_id, item.revision) for item in there}
        waiting = [change for change in upserts if (change.item_id, change.revision) not in known]
        for start in range(0, len(waiting), AT_ONCE):
            self.store.put_embedded(self.bundle.version, self._embedded(waiting[start : start + AT_ONCE]))
        self.revision = max((change.revision for change in changes), default=self.revision)
        self.items += len(upserts)
        return len(waiting)

    def warm(self) -> None:
        """Loads the text encoder, where there is one, and what all items share, so that the first does not wait."""
        if self.new_items is not None and self.new_items.inductive.info["text"] is not None:
            kinds = item_kinds(self.bundle)
            self.new_items.embed(items_table([dict.fromkeys(kinds.text, "a text")], kinds))

    def _embedded(self, changes: Sequence[CatalogChange]) -> list[EmbeddedItem]:
        """Of each change what the bundle makes of it; no bytes where that is nothing."""
        assert self.new_items is not None
        table = items_table([change.item or {} for change in changes], item_kinds(self.bundle))
        try:
            found = [item.to_bytes() for item in self.new_items.embed(table)]
        except DataError:
            if len(changes) == 1:
                logger.warning("an item of catalogue revision %d says nothing to this bundle", changes[0].revision)
                return [EmbeddedItem(changes[0].item_id, changes[0].revision, b"")]
            return [item for change in changes for item in self._embedded([change])]
        return [EmbeddedItem(c.item_id, c.revision, data) for c, data in zip(changes, found, strict=True)]


def run(settings: ServerSettings, first: Path | None, lines: queue.Queue[dict[str, Any] | None], out: TextIO) -> None:
    """Embeds until ``lines`` end with None."""
    store: StateStore | None = None
    embedders: dict[Path, Embedder] = {}  # the served bundle's first
    told = True  # what the last bundle asked for
    if first is not None:
        lines.put({"bundle": str(first)})
    while True:
        try:
            line = lines.get(timeout=POLL_S)
            if line is None:
                return
            if "settings" in line:
                settings, store, embedders = ServerSettings.model_validate(line["settings"]), None, {}
                logging.getLogger().setLevel(settings.log.level.upper())
            if "bundle" in line:
                store = store or open_store(settings.store, settings.bundle)
                told = store is None
                if store is None:
                    _tell(line["bundle"], 0, out)
                else:
                    embedders = _following(Path(line["bundle"]), settings, store, embedders)
        except queue.Empty:
            pass
        try:
            for embedder in embedders.values():
                embedder.catch_up()
        except StoreError as error:
            logger.warning("items cannot be embedded: %s", error)
            time.sleep(PAUSE_S)
            continue
        if not told:
            served = next(iter(embedders.values()))
            _tell(served.bundle.version, served.items, out)
            told = True


def _following(
    served: Path, settings: ServerSettings, store: StateStore, before: dict[Path, Embedder]
) -> dict[Path, Embedder]:
    """Embedders for the served bundle and those of variants; one that was there before goes on."""
    variants = [resolve(settings.bundle, version) for version in sorted(settings.experiment.bundle_versions)]
    embedders = {path: before.get(path) for path in (served, *variants)}
    return {path: embedder or _warmed(path, store) for path, embedder in embedders.items()}


def _warmed(path: Path, store: StateStore) -> Embedder:
    embedder = Embedder(load_bundle(path, verify=False), store)
    embedder.warm()
    return embedder


def _tell(version: str, items: int, out: TextIO) -> None:
    print(json.dumps({"embedded": version, "items": items}), file=out, flush=True)


def read_lines(source: TextIO, lines: queue.Queue[dict[str, Any] | None]) -> None:
    """Puts every line, and None at the end."""
    for line in source:
        lines.put(json.loads(line))
    lines.put(None)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Embeds the items that are added to a server's catalogue.")
    parser.add_argument("--bundle", type=Path, help="a bundle's folder to begin with")
    parser.add_argument("--config", type=Path, help="the server's settings")
    parser.add_argument("--nice", action="store_true", help="give way to other processes")
    options = parser.parse_args(arguments)
    if options.nice:
        os.nice(NICE)
    log_to_stderr()
    lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
    try:
        settings = read_settings(options.config, bundle=options.bundle or Path())
        threading.Thread(target=read_lines, args=(sys.stdin, lines), name="lines", daemon=True).start()
        run(settings, options.bundle, lines, sys.stdout)
    except ReckgError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
