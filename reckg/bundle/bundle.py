"""Bundle: everything that is served, as one immutable, versioned folder.

    manifest.json           format and bundle version, configuration, metrics, sha256 and size of every other file, ...
    users.parquet           user_id, in user_idx order
    items.parquet           item_id, text and attribute columns, in item_idx order
    embeddings.safetensors  users (U, d), items (I, d) float32
    history.safetensors     the users' interactions as compressed rows
    index/ features/        the FAISS index; the feature tables
    ranker/                 the LightGBM model as text, where the bundle has one
    inductive/              what new items and users are embedded with; may be left out
    golden.jsonl            a few requests with their answers
    model/ text_encoder/    what the jobs add

Vectors, history and feature tables are mapped into memory, and nothing is unpickled. Hashes are checked before FAISS or
LightGBM read a file: their parsers do not survive every damaged one.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors import SafetensorError
from safetensors.numpy import save_file

from reckg import __version__
from reckg.bundle.manifest import FORMAT_VERSION, MANIFEST, VERSION, manifest_text, read_manifest
from reckg.data.history import History
from reckg.data.ids import IdMap
from reckg.errors import ArtifactError, CannotEmbedError, DataError
from reckg.files.atomic_folder import check_files, describe_files, written_folder
from reckg.files.mapped_tensors import mapped_tensors
from reckg.inductive.embedder import Inductive, load_inductive
from reckg.live.live_bundle import ChangedFilters, changed_traits
from reckg.ranking.diversity import Diversity, ItemTraits, item_traits
from reckg.ranking.tables.feature_tables import FeatureTables, load_feature_tables
from reckg.ranking.trees.ranker import Ranker, load_ranker
from reckg.recommend.golden import golden_lines, replay_golden_file
from reckg.retrieval.faiss_index import Device
from reckg.retrieval.filters import ItemFilters
from reckg.retrieval.index import ItemIndex, load_index

GOLDEN = "golden.jsonl"
OWN_FILES = (MANIFEST, GOLDEN, "users.parquet", "items.parquet", "embeddings.safetensors", "history.safetensors")
OWN_FOLDERS = ("index", "features", "ranker", "inductive")
DEFAULT_CANDIDATES = 200  # where the manifest holds no configuration
LIBRARIES = (
    "numpy",
    "polars",
    "scipy",
    "safetensors",
    "faiss-cpu",
    "faiss-gpu",
    "lightgbm",
    "torch",
    "transformers",
    "dgl",
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, eq=False)
class Bundle:
    """What is served, in memory; U users, I items, d dimensions.

    ``manifest`` of a bundle that is to be saved holds what the caller knows: ``config``, ``metrics``, ``data_hash``,
    ``item_columns`` (``text``: the names of the text columns, the title first), ``ranker`` (served, or refused and
    why); `save_bundle` adds the rest.
    """

    version: str
    manifest: dict[str, Any]
    user_ids: IdMap
    item_ids: IdMap
    items: pl.DataFrame  # item_idx order; item_id, text and attribute columns
    user_vectors: np.ndarray  # (U, d) float32
    item_vectors: np.ndarray  # (I, d) float32; where items were added, a GrownArray
    index: ItemIndex
    history: History
    features: FeatureTables
    ranker: Ranker | None
    inductive: Inductive | None = field(default=None, repr=False)  # None: nothing can be embedded
    # Of a bundle whose catalogue has changed since; none of it is saved. See reckg.live.live_bundle.
    base: Bundle | None = field(default=None, repr=False)  # what was built
    unavailable: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64), repr=False)  # sorted item_idx
    revised: Mapping[int, Mapping[str, Any]] = field(default_factory=dict, repr=False)  # rows in place of the base's

    @property
    def embedder(self) -> Inductive:
        """What new items and users are embedded with. Raises CannotEmbedError where the bundle has none."""
        if self.inductive is None:
            raise CannotEmbedError(
                f"bundle {self.version!r} holds nothing to embed new items and users with: its folder inductive/ was "
                "left out. Run 'reckg bundle' again."
            )
        return self.inductive

    def with_items(self, new_items: pl.DataFrame) -> Bundle:
        """With new items at the end of the catalogue, to be recommended at once; for this process, not to be saved.

        ``manifest["added_items"]`` says how many, and by item id which of their values and columns are unknown.

        Args:
            new_items: item_id, and the catalogue's text and attribute columns or some of them; more in
                Inductive.embed_items.
        Raises:
            DataError: an id is empty, repeated, or in the bundle already; or as Inductive.embed_items.
            CannotEmbedError: the bundle has nothing to embed with.
        """
        from reckg.live.add_items import with_items

        return with_items(self, new_items)

    @property
    def candidates(self) -> int:
        """Items that are retrieved for reranking: as many as the ranker was trained for."""
        return int(self.manifest.get("config", {}).get("rank", {}).get("candidates", DEFAULT_CANDIDATES))

    @cached_property
    def diversity(self) -> Diversity:
        """What is done with lists after ranking, as configured; nothing where the manifest says nothing."""
        return Diversity(**self.manifest.get("config", {}).get("diversity", {}))

    def traits(self, diversity: Diversity) -> ItemTraits:
        """What ``diversity`` needs of the items; kept. Raises ConfigError where the items lack a column."""
        key = diversity.column, diversity.provider_column
        if key not in self._traits:
            whole = item_traits(self.items, self.item_vectors, diversity) if self.base is None else None
            self._traits[key] = changed_traits(self, diversity) if whole is None else whole
        return self._traits[key]

    @property
    def known_traits(self) -> list[tuple[str, str]]:
        """The columns and provider columns of which ``traits`` were asked for."""
        return list(self._traits)

    @cached_property
    def _traits(self) -> dict[tuple[str, str], ItemTraits]:
        return {}

    @cached_property
    def available(self) -> np.ndarray:
        """(I,) bool: the items that may be recommended."""
        available = np.ones(len(self.item_ids), dtype=bool)
        available[self.unavailable] = False
        return available

    @cached_property
    def item_filters(self) -> ItemFilters | ChangedFilters:
        """Filters over the catalogue."""
        if self.base is not None:
            return ChangedFilters(self)
        return ItemFilters(self.items, self.item_ids, self.manifest.get("item_columns", {}))

    @cached_property
    def schema(self) -> pl.Schema:
        """The types of the catalogue's columns; item_id is the first."""
        return self.items.schema

    @cached_property
    def title_column(self) -> str | None:
        """The first text column of the catalogue, or None."""
        text = self.manifest.get("item_columns", {}).get("text", [])
        return str(text[0]) if text else None

    def titles(self, item_idx: np.ndarray) -> list[str]:
        """Titles of (n,) items; empty where an item has none."""
        if self.title_column is None:
            return [""] * len(item_idx)
        titles, column, revised = self.items[self.title_column], self.title_column, self.revised
        return [  # one by one: a gather of a few costs 50 times more
            (revised[item][column] if item in revised else titles[item]) or "" for item in item_idx.tolist()
        ]

    def row(self, item_idx: int) -> dict[str, Any]:
        """What the catalogue says of an item, by column; item_id is one."""
        return dict(self.revised.get(item_idx) or self.items.row(item_idx, named=True))


def save_bundle(
    bundle: Bundle, path: Path, *, extra_folders: Mapping[str, Path] | None = None, overwrite: bool = False
) -> dict[str, Any]:
    """Writes a bundle beside ``path``, loads it again as a check, and renames it into place.

    A reader finds the old bundle or the new one at ``path``, never a part.

    Args:
        extra_folders: folders to copy into the bundle, by the name they get there, as ``model``.
        overwrite: replace the bundle that is at ``path``.
    Returns:
        The manifest as written.
    Raises:
        ArtifactError: ``path`` exists and ``overwrite`` is off (or it is no bundle), the parts do not fit together,
            an extra folder is missing or its name is taken, or the disk refuses.
    """
    if bundle.base is not None:
        raise ArtifactError(
            f"bundle {bundle.version!r} has added items or changed ones and is not saved: run 'reckg run' with them."
        )
    check_bundle(bundle)
    extra = dict(extra_folders or {})
    for name, folder in extra.items():
        if not _NAME.fullmatch(name) or name in OWN_FILES or name in OWN_FOLDERS:
            raise ArtifactError(f"an extra folder of a bundle cannot be called {name!r}; choose another name.")
        if not Path(folder).is_dir():
            raise ArtifactError(f"{folder} is missing; it was to be copied into the bundle as {name!r}.")
    with written_folder(path, overwrite=overwrite, marker=MANIFEST) as folder:
        _write_parts(bundle, folder)
        for name, source in extra.items():
            shutil.copytree(source, folder / name)
        (folder / GOLDEN).write_text(golden_lines(bundle), encoding="utf-8")
        manifest = _manifest(bundle, describe_files(folder))
        (folder / MANIFEST).write_text(manifest_text(manifest), encoding="utf-8")
        load_bundle(folder)
    return manifest


def load_bundle(path: Path, verify: bool = True) -> Bundle:
    """Reads a bundle.

    Args:
        verify: check the hash of every file and replay the golden requests; else only names, sizes and shapes, and
            the hashes of the files whose parsers do not survive damage.
    Raises:
        ArtifactError: names everything that is missing or damaged, or the parts that do not fit together, or the
            golden request that is answered otherwise.
    """
    path = Path(path)
    manifest = read_manifest(path)
    check_files(path, manifest["files"], hashed=None if verify else ("index/", "ranker/"))
    try:
        bundle = _read_parts(path, manifest)
        check_bundle(bundle)
        problems = bundle.inductive.encoder_problems(manifest["files"]) if bundle.inductive is not None else []
    except (OSError, pl.exceptions.PolarsError, SafetensorError, KeyError, DataError) as error:
        raise ArtifactError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    if problems:
        raise ArtifactError(f"{path}: {problems[0]}: built from different runs? Run 'reckg run' again.")
    if verify:
        replay_golden_file(bundle, path / GOLDEN)
    return bundle


def check_bundle(bundle: Bundle) -> None:
    """Checks that the parts of a bundle fit together. Raises ArtifactError with everything that does not."""
    n_users, n_items = len(bundle.user_ids), len(bundle.item_ids)
    dim = bundle.item_vectors.shape[-1]
    problems = [] if VERSION.fullmatch(bundle.version) else [f"version {bundle.version!r} is no name of a folder"]
    if n_users == 0 or n_items == 0:
        problems.append(f"there are {n_users} users and {n_items} items")
    problems += _array_problems("user vectors", bundle.user_vectors, (n_users, dim), "user ids")
    problems += _array_problems("item vectors", bundle.item_vectors, (n_items, dim), "item ids")
    if bundle.items.height != n_items or bundle.items.columns[:1] != ["item_id"]:
        problems.append(f"items has {bundle.items.height:_} rows, item ids {n_items:_}, or does not start with item_id")
    if bundle.title_column is not None and bundle.items.schema.get(bundle.title_column) != pl.String:
        problems.append(f"items has no text column {bundle.title_column!r}, which item_columns.text names first")
    if bundle.index.n_items != n_items:
        problems.append(f"index has {bundle.index.n_items:_} vectors, item ids {n_items:_}")
    elif bundle.index.dim != dim:
        problems.append(f"index has {bundle.index.dim} dimensions, item vectors {dim}")
    elif not problems and not np.array_equal(bundle.index.vectors(), bundle.item_vectors):
        problems.append("index and item vectors hold different vectors")
    problems += _history_problems(bundle.history, n_users, n_items)
    for what, table, n in (("users", bundle.features.users, n_users), ("items", bundle.features.items, n_items)):
        if len(table) != n:
            problems.append(f"feature tables have {len(table):_} {what}, {what[:-1]} ids {n:_}")
    if bundle.inductive is not None:
        problems += bundle.inductive.problems(n_users, n_items, dim)
    if problems:
        raise ArtifactError(
            f"bundle {bundle.version!r}: " + "; ".join(problems) + ": built from different runs? Run 'reckg run' again."
        )


def _array_problems(what: str, array: np.ndarray, shape: tuple[int, ...], counted: str) -> list[str]:
    if array.ndim == len(shape) and array.shape[0] != shape[0]:
        return [f"{what} have {array.shape[0]:_} rows, {counted} {shape[0]:_}"]
    if array.shape != shape or array.dtype != np.float32:
        return [f"{what} are {array.dtype} of shape {array.shape}, expected float32 of {shape}"]
    bad = int((~np.isfinite(array)).sum())
    return [f"{what} hold {bad:_} values that are not finite"] if bad else []


def _history_problems(history: History, n_users: int, n_items: int) -> list[str]:
    indptr, item_idx = history.indptr, history.item_idx
    if indptr.ndim != 1 or history.n_users != n_users:
        return [f"history has {len(indptr) - 1:_} users, user ids {n_users:_}"]
    lengths = {len(item_idx), len(history.timestamp), len(history.weight), int(indptr[-1])}
    if len(lengths) > 1 or indptr[0] != 0 or (np.diff(indptr) < 0).any():
        return [f"history's rows do not fit its {len(item_idx):_} interactions"]
    outside = int(((item_idx < 0) | (item_idx >= n_items)).sum())
    return [f"history names {outside:_} times an item outside 0..{n_items - 1}"] if outside else []


def _write_parts(bundle: Bundle, folder: Path) -> None:
    history = bundle.history
    pl.DataFrame({"user_id": bundle.user_ids.ids}).write_parquet(folder / "users.parquet")
    bundle.items.write_parquet(folder / "items.parquet")
    _write_tensors(folder / "embeddings.safetensors", users=bundle.user_vectors, items=bundle.item_vectors)
    _write_tensors(
        folder / "history.safetensors",
        indptr=history.indptr,
        item_idx=history.item_idx,
        timestamp=history.timestamp,
        weight=history.weight,
    )
    bundle.index.save(folder / "index")
    bundle.features.save(folder / "features")
    if bundle.ranker is not None:
        bundle.ranker.save(folder / "ranker")
    if bundle.inductive is not None and bundle.inductive.folder is not None:
        shutil.copytree(bundle.inductive.folder, folder / "inductive")


def _write_tensors(path: Path, **tensors: np.ndarray) -> None:
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, path)


def _read_parts(path: Path, manifest: dict[str, Any]) -> Bundle:
    users, items = pl.read_parquet(path / "users.parquet"), pl.read_parquet(path / "items.parquet")
    embeddings, history = mapped_tensors(path / "embeddings.safetensors"), mapped_tensors(path / "history.safetensors")
    device: Device = "cpu" if manifest.get("config", {}).get("index", {}).get("device", "cpu") == "cpu" else "auto"
    folders = {name.partition("/")[0] for name in manifest["files"]}
    return Bundle(
        version=manifest["version"],
        manifest=manifest,
        user_ids=IdMap(users["user_id"], "user id"),
        item_ids=IdMap(items["item_id"], "item id"),
        items=items,
        user_vectors=embeddings["users"],
        item_vectors=embeddings["items"],
        index=load_index(path / "index", device),
        history=History(history["indptr"], history["item_idx"], history["timestamp"], history["weight"]),
        features=load_feature_tables(path / "features"),
        ranker=load_ranker(path / "ranker") if "ranker" in folders else None,
        inductive=load_inductive(path / "inductive", items["item_id"].to_list()) if "inductive" in folders else None,
    )


def _manifest(bundle: Bundle, files: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the caller knows, and over it what only the written bundle can tell."""
    return {
        **bundle.manifest,
        "format_version": FORMAT_VERSION,
        "version": bundle.version,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "counts": {
            "users": len(bundle.user_ids),
            "items": len(bundle.item_ids),
            "dimensions": int(bundle.item_vectors.shape[1]),
            "interactions": len(bundle.history.item_idx),
        },
        "ranked": bundle.ranker is not None,
        "library_versions": _library_versions(),
        "files": files,
    }


def _library_versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "reckg": __version__}
    for library in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[library] = importlib.metadata.version(library)
    return versions
