"""The embedder: the one process that loads the text encoder. It embeds upserted items for all workers.

    python -m serving.catalog.embedder --bundle run/bundle [--config server.toml]

It reads JSON lines. ``{"settings": {...}}`` gives the settings of the server. ``{"bundle": "PATH"}`` names the served
bundle; the embedder follows it and the bundles that variants of an experiment name. Once everything is embedded for the
served bundle, it prints ``{"embedded": VERSION, "items": N}``. It ends with its input. It loads the encoder at once,
which takes seconds, so that no item waits for the encoder.
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
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO, TypedDict

from reckg.bundle.bundle import Bundle
from reckg.bundle.read import load_bundle
from reckg.bundle.store import resolve
from reckg.errors import DataError, ReckgError
from reckg.live.changes import CatalogChange, EmbeddedItem
from reckg.live.embed_items import NewItemEmbedder, items_table
from reckg.live.rows import item_kinds
from serving.monitoring.logs import log_to_stderr
from serving.settings import ServerSettings, read_settings
from serving.store import StateStore, StoreError
from serving.store.open_store import open_store

POLL_S = 0.1
PAUSE_S = 1.0  # before the next try of a store that did not answer
AT_ONCE = 32  # items embedded in one call
NICE = 5  # increment of --nice


class InputLine(TypedDict, total=False):
    """A line of the input: other settings, another bundle's path, or both."""

    settings: dict[str, Any]
    bundle: str


logger = logging.getLogger("reckg.serving")


class Embedder:
    """An embedder of the store's upserted items for one bundle. Without an inductive part it embeds none.

    Attributes:
        revision: catalog revision up to which everything is embedded.
        items: number of embedded items, those of earlier processes included.
    """

    def __init__(self, bundle: Bundle, store: StateStore) -> None:
        self.bundle, self.store = bundle, store
        self.new_items = None if bundle.inductive is None else NewItemEmbedder(bundle)
        self.revision = 0
        self.items = 0

    def catch_up(self) -> int:
        """Embeds the waiting items by rising revision, and returns their number.

        Raises:
            StoreError: the store does not answer; the next call goes on from there.
        """
        if self.new_items is None or self.store.catalog_revision() == self.revision:
            return 0
        changes = self.store.catalog_changes(self.revision)
        upserts = [c for c in changes if c.kind == "upsert" and c.item_id not in self.bundle.item_ids]
        stored = self.store.embedded(self.bundle.version, [change.item_id for change in upserts]) if upserts else []
        known = {(item.item_id, item.revision) for item in stored}
        waiting = [change for change in upserts if (change.item_id, change.revision) not in known]
        for start in range(0, len(waiting), AT_ONCE):
            self.store.put_embedded(self.bundle.version, self._embed(waiting[start : start + AT_ONCE]))
        self.revision = max((change.revision for change in changes), default=self.revision)
        self.items += len(upserts)
        return len(waiting)

    def warm(self) -> None:
        """Embeds a text, so that the first item does not wait for the text encoder and the shared tables."""
        if self.new_items is not None and self.new_items.inductive.info["text"] is not None:
            kinds = item_kinds(self.bundle)
            self.new_items.embed(items_table([dict.fromkeys(kinds.text, "a text")], kinds))

    def _embed(self, changes: Sequence[CatalogChange]) -> list[EmbeddedItem]:
        """Embeds the item of each change. An item that the bundle knows nothing about gets no bytes."""
        assert self.new_items is not None
        table = items_table([change.item or {} for change in changes], item_kinds(self.bundle))
        try:
            found = [item.to_bytes() for item in self.new_items.embed(table)]
        except DataError:
            if len(changes) == 1:
                logger.warning("this bundle cannot embed an item of catalog revision %d", changes[0].revision)
                return [EmbeddedItem(changes[0].item_id, changes[0].revision, b"")]
            return [item for change in changes for item in self._embed([change])]
        return [EmbeddedItem(c.item_id, c.revision, data) for c, data in zip(changes, found, strict=True)]


class Embedders:
    """The embedders of the served bundle and of the variants' bundles.

    Args:
        settings: of the server.
        out: gets a line when everything is embedded for the served bundle.
    """

    def __init__(self, settings: ServerSettings, out: TextIO) -> None:
        self._settings, self._out = settings, out
        self._store: StateStore | None = None
        self._embedders: dict[Path, Embedder] = {}  # the served bundle comes first
        self._reported = True

    def obey(self, line: InputLine) -> None:
        """Takes other settings or follows another bundle, as a line of the input says."""
        if "settings" in line:
            self._settings = ServerSettings.model_validate(line["settings"])
            self._store, self._embedders = None, {}
            logging.getLogger().setLevel(self._settings.log.level.upper())
        if "bundle" in line:
            self._follow(line["bundle"])

    def catch_up(self) -> None:
        """Embeds the waiting items for every bundle, and reports the first time. Raises StoreError."""
        for embedder in self._embedders.values():
            embedder.catch_up()
        if not self._reported:
            served = next(iter(self._embedders.values()))
            self._report(served.bundle.version, served.items)

    def _follow(self, bundle: str) -> None:
        self._store = store = self._store or open_store(self._settings.store, self._settings.bundle)
        if store is None:
            self._report(bundle, 0)
            return
        versions = sorted(self._settings.experiment.bundle_versions)
        paths = dict.fromkeys([Path(bundle), *(resolve(self._settings.bundle, version) for version in versions)])
        self._embedders = {path: self._embedders.get(path) or _warm_embedder(path, store) for path in paths}
        self._reported = False

    def _report(self, version: str, items: int) -> None:
        print(json.dumps({"embedded": version, "items": items}), file=self._out, flush=True)
        self._reported = True


def run(settings: ServerSettings, first: Path | None, lines: queue.Queue[InputLine | None], out: TextIO) -> None:
    """Embeds until ``lines`` end with None.

    Args:
        settings: of the server.
        first: bundle to begin with; None: the first line names it.
        lines: parsed lines of the input.
        out: gets the reports.
    """
    embedders = Embedders(settings, out)
    if first is not None:
        lines.put({"bundle": str(first)})
    while True:
        with suppress(queue.Empty):
            line = lines.get(timeout=POLL_S)
            if line is None:
                return
            embedders.obey(line)
        try:
            embedders.catch_up()
        except StoreError as error:
            logger.warning("items cannot be embedded: %s", error)
            time.sleep(PAUSE_S)


def _warm_embedder(path: Path, store: StateStore) -> Embedder:
    embedder = Embedder(load_bundle(path, verify=False), store)
    embedder.warm()
    return embedder


def read_lines(source: TextIO, lines: queue.Queue[InputLine | None]) -> None:
    """Parses lines into a queue, and puts None at the end.

    Args:
        source: JSON lines.
        lines: gets the parsed lines.
    """
    for line in source:
        lines.put(json.loads(line))
    lines.put(None)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Embeds the items that are added to a server's catalog.")
    parser.add_argument("--bundle", type=Path, help="a bundle's folder to begin with")
    parser.add_argument("--config", type=Path, help="the server's settings")
    parser.add_argument("--nice", action="store_true", help="give way to other processes")
    options = parser.parse_args(arguments)
    if options.nice:
        os.nice(NICE)
    log_to_stderr()
    lines: queue.Queue[InputLine | None] = queue.Queue()
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
