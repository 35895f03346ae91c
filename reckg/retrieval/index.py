"""ItemIndex: candidate retrieval by inner product over a FAISS index, flat (exact) or HNSW (approximate)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from reckg.compressed_rows import Rows, take_rows
from reckg.errors import ArtifactError, ConfigError
from reckg.file_hash import file_sha256
from reckg.retrieval.exact import (
    checked_queries,
    checked_seen,
    checked_vectors,
    empty_result,
    exact_search,
    pair_scores,
    write_best,
)
from reckg.retrieval.scored_items import ScoredItems

Kind = Literal["flat", "hnsw"]

FORMAT_VERSION = 1
SPARE = 8  # candidates beyond the wanted ones, so that FAISS's rounding does not decide which comes in last
PAIRS_AT_ONCE = 2**20
BATCH = 32  # from this many queries on, one matrix product is several times faster than FAISS's flat search


class ItemIndex:
    """An immutable index over the items' vectors; row i is item_idx i. Searching is safe from several threads."""

    def __init__(self, index: Any, kind: Kind, settings: dict[str, int]) -> None:
        self._index = index
        self.kind: Kind = kind
        self.settings = settings  # hnsw: hnsw_m, ef_construction, ef_search
        self.n_items = int(index.ntotal)
        self.dim = int(index.d)
        self._vectors = np.zeros((0, self.dim), dtype=np.float32)
        if self.n_items:
            self._vectors = np.asarray(_StoredVectors(index, kind))

    def vectors(self) -> np.ndarray:
        """(n_items, dim) float32: the indexed vectors, read-only and without a copy."""
        return self._vectors

    def search(self, queries: np.ndarray, k: int, seen: Rows | None = None) -> ScoredItems:
        """The k best items of every query by inner product, without those it has seen.

        A flat index answers as ``exact_search`` does, up to the choice among equal scores. HNSW may miss items, but
        never answers fewer than k where k are left: such rows are searched exactly.

        Args:
            queries: (n, dim) float32, finite.
            k: length of the lists, k >= 1.
            seen: compressed rows (indptr (n + 1,), item_idx) of the items to leave out.
        Returns:
            item_idx and score (n, k), padded with -1 and -inf where fewer than k items are left.
        Raises:
            DataError, ArtifactError, ValueError: as ``exact_search``.
        """
        queries = checked_queries(queries, self.dim, k)
        n = len(queries)
        result = empty_result(n, k)
        if n == 0 or self.n_items == 0:
            return result
        if seen is None:
            n_seen = np.zeros(n, dtype=np.int64)
        else:
            seen = checked_seen(seen, n, self.n_items)
            n_seen = np.diff(seen[0])
        if self.kind == "flat" and n >= BATCH:
            return exact_search(queries, self._vectors, k, seen)
        # FAISS knows no exclusion by row: fetch as many more as the row has seen, in a few groups of like length.
        wanted = np.minimum(k + n_seen + SPARE, self.n_items)
        fetch = np.minimum(2 ** np.ceil(np.log2(wanted)).astype(np.int64), self.n_items)
        exact = (fetch > self.n_items // 4) if self.kind == "hnsw" else np.zeros(n, dtype=bool)
        for size in np.unique(fetch[~exact]):
            rows = np.flatnonzero((fetch == size) & ~exact)
            step = max(1, PAIRS_AT_ONCE // int(size))
            for start in range(0, len(rows), step):
                self._search_group(queries, rows[start : start + step], int(size), seen, result)
        if self.kind == "hnsw":
            exact |= (result.item_idx < 0).any(axis=1)
            rows = np.flatnonzero(exact)
            if len(rows):
                found = exact_search(queries[rows], self._vectors, k, None if seen is None else take_rows(seen, rows))
                result.item_idx[rows], result.score[rows] = found.item_idx, found.score
        return result

    def _search_group(
        self, queries: np.ndarray, rows: np.ndarray, fetch: int, seen: Rows | None, result: ScoredItems
    ) -> None:
        """Searches some rows with one call to FAISS and writes their lists into ``result``."""
        parameters = None
        if self.kind == "hnsw":
            effort = max(self.settings["ef_search"], fetch)
            parameters = _faiss().SearchParametersHNSW(efSearch=effort)
        _, found = self._index.search(queries[rows], fetch, params=parameters)
        keep = found >= 0  # FAISS answers -1 where it finds nothing
        row, place = np.nonzero(keep)
        item = found[row, place]
        part = None if seen is None else take_rows(seen, rows)
        if part is not None and len(part[1]):
            seen_pairs = np.repeat(np.arange(len(rows)), np.diff(part[0])) * self.n_items + part[1]
            allowed = ~np.isin(row * self.n_items + item, seen_pairs)
            row, item = row[allowed], item[allowed]
        best = empty_result(len(rows), result.item_idx.shape[1])
        write_best(best, 0, row, item, pair_scores(queries[rows], self._vectors, row, item))
        result.item_idx[rows], result.score[rows] = best.item_idx, best.score

    def with_vectors(self, vectors: np.ndarray) -> ItemIndex:
        """A copy with (m, dim) float32 more vectors at the end. Raises ArtifactError where they do not fit."""
        vectors = checked_vectors(vectors)
        if vectors.shape[1] != self.dim:
            raise ArtifactError(f"{vectors.shape[1]} dimensions are added to an index of {self.dim}: from another run?")
        faiss = _faiss()
        cloned = faiss.clone_index(self._index)
        index = faiss.downcast_index(cloned)
        index.referenced_objects = [cloned]  # the memory is freed with that object
        index.add(vectors)
        return ItemIndex(index, self.kind, self.settings)

    def save(self, folder: Path) -> None:
        """Writes ``index.faiss`` and ``index.json`` (kind, sizes, settings, sha256) into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "index.faiss"
        _faiss().write_index(self._index, str(path))
        description = {
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "n_items": self.n_items,
            "dim": self.dim,
            "settings": self.settings,
            "sha256": file_sha256(path),
        }
        (folder / "index.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def build_index(
    vectors: np.ndarray,
    *,
    kind: Kind = "flat",
    hnsw_m: int = 32,
    ef_construction: int = 200,
    ef_search: int = 256,
) -> ItemIndex:
    """Indexes (n_items, d) float32 vectors, item_idx by row, for search by inner product.

    Raises:
        ArtifactError: the vectors are not finite or not a matrix; faiss is not installed.
        ConfigError: an unknown kind.
    Source: HNSW, Malkov & Yashunin 2018, arXiv:1603.09320.
    """
    if kind not in get_args(Kind):
        raise ConfigError(f"index.kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
    vectors = checked_vectors(vectors)
    faiss = _faiss()
    if kind == "flat":
        index, settings = faiss.IndexFlatIP(vectors.shape[1]), {}
    else:
        index = faiss.IndexHNSWFlat(vectors.shape[1], hnsw_m, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = ef_construction
        settings = {"hnsw_m": hnsw_m, "ef_construction": ef_construction, "ef_search": ef_search}
    index.add(vectors)
    return ItemIndex(index, kind, settings)


def load_index(folder: Path) -> ItemIndex:
    """Reads an index that ``ItemIndex.save`` wrote.

    Raises:
        ArtifactError: a file is missing, was changed, or does not fit its description.
    """
    description = _read_description(folder / "index.json")
    path = folder / "index.faiss"
    if not path.is_file():
        raise ArtifactError(f"{path} is missing. Run 'reckg index' again.")
    found = file_sha256(path)
    if found != description["sha256"]:
        raise ArtifactError(
            f"{path} is damaged: its sha256 is {found[:12]}, index.json says {str(description['sha256'])[:12]}. "
            "Run 'reckg index' again."
        )
    faiss = _faiss()
    try:
        read = faiss.read_index(str(path))
    except RuntimeError as error:
        raise ArtifactError(f"{path} cannot be read by faiss: {error}. Run 'reckg index' again.") from error
    index = faiss.downcast_index(read)
    index.referenced_objects = [read]  # the memory is freed with that object
    kind: Kind = description["kind"]
    expected = faiss.IndexFlatIP if kind == "flat" else faiss.IndexHNSWFlat
    if not isinstance(index, expected) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
        raise ArtifactError(f"{path} holds {type(index).__name__}, index.json says {kind}. Run 'reckg index' again.")
    if (index.ntotal, index.d) != (description["n_items"], description["dim"]):
        raise ArtifactError(
            f"{path} has {index.ntotal} vectors of {index.d} dimensions, index.json says {description['n_items']} of "
            f"{description['dim']}. Run 'reckg index' again."
        )
    return ItemIndex(index, kind, description["settings"])


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}. Run 'reckg index' again.") from error
    needed = {"format_version", "kind", "n_items", "dim", "settings", "sha256"}
    if not isinstance(description, dict) or not needed <= set(description):
        raise ArtifactError(f"{path} lacks some of {sorted(needed)}. Run 'reckg index' again.")
    if description["format_version"] != FORMAT_VERSION or description["kind"] not in get_args(Kind):
        raise ArtifactError(
            f"{path} has format {description['format_version']!r} and kind {description['kind']!r}; this version of "
            f"reckg reads format {FORMAT_VERSION} and the kinds {', '.join(get_args(Kind))}. Run 'reckg index' again."
        )
    if description["kind"] == "hnsw" and "ef_search" not in description["settings"]:
        raise ArtifactError(f"{path} lacks settings.ef_search. Run 'reckg index' again.")
    return description


class _StoredVectors:
    """The vectors that FAISS keeps, for NumPy to look at; keeps the index alive as long as an array does."""

    def __init__(self, index: Any, kind: Kind) -> None:
        faiss = _faiss()
        flat = index if kind == "flat" else faiss.downcast_index(index.storage)
        view = faiss.rev_swig_ptr(flat.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)
        view.flags.writeable = False
        self.__array_interface__ = view.__array_interface__
        self._index = index


def _faiss() -> Any:
    """The faiss module, imported when it is needed. Raises ArtifactError with both ways to install it."""
    try:
        import faiss
    except ImportError as error:
        raise ArtifactError(
            f"faiss cannot be imported ({error}): install it with pip install 'reckg[cpu]' (faiss-cpu) "
            "or pip install 'reckg[gpu]' (faiss-gpu)."
        ) from error
    return faiss
