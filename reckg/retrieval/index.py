"""ItemIndex: retrieval by inner product over a FAISS index, flat (exact), IVF or HNSW (approximate)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypedDict, Unpack, get_args

import numpy as np

from reckg.arrays.ragged_rows import Rows, not_listed, take_rows
from reckg.errors import ConfigError, DataError
from reckg.files.file_hash import file_sha256
from reckg.retrieval.exact import (
    check_queries,
    check_seen,
    check_vectors,
    pair_scores,
    search_checked,
    write_best,
)
from reckg.retrieval.faiss_index import (
    CLASSES,
    Compression,
    Device,
    GpuCopy,
    Kind,
    copy_to_device,
    import_faiss,
    search_parameters,
    train_index,
    view_stored_vectors,
)
from reckg.retrieval.scored_items import ScoredItems, empty_result

FORMAT_VERSION = 2
SPARE = 8  # candidates beyond k, so that FAISS's rounding does not decide the last place
PAIRS_AT_ONCE = 2**20
IVF_BATCH = 16  # from 20 on, FAISS takes a matrix product, whose rounding may choose other lists than for one query
BATCH = 32  # from this many queries on, one matrix product is several times faster than FAISS's flat search
SELECTIVE = 0.15  # share of allowed items up to which exact search is faster: measured, docs/measurements/retrieval.md


class IndexSettings(TypedDict, total=False):
    """Sizes and efforts of an index, as far as its kind has them.

    hnsw_m: links per item. ef_construction, ef_search: effort of building and searching hnsw. ivf_lists, nprobe: lists
    of ivf, and lists visited by a search. pq_bytes: bytes per vector of pq. rescore: candidates of a compressed index
    whose exact score is computed, per item of the answer.
    """

    hnsw_m: int
    ef_construction: int
    ef_search: int
    ivf_lists: int
    nprobe: int
    pq_bytes: int
    rescore: int


class Recall(TypedDict):
    """Recall of an index as ``meet_target`` measured it: the mean of ``queries`` queries at depth k."""

    recall: float
    k: int
    target: float
    queries: int


class IndexDescription(TypedDict):
    """Kind, settings and recall of an index, as in index.json."""

    kind: Kind
    compression: Compression
    settings: dict[str, int]
    recall: Recall | None


DEFAULTS: IndexSettings = {
    "hnsw_m": 32,
    "ef_construction": 200,
    "ef_search": 256,
    "ivf_lists": 0,
    "nprobe": 16,
    "pq_bytes": 16,
    "rescore": 4,
}


class ItemIndex:
    """Immutable index over the items' vectors; row i is item_idx i. Safe to search from several threads.

    Args:
        index: FAISS's index.
        settings: those of IndexSettings that the kind has.
        vectors: (n_items, dim) float32, if FAISS's index does not hold them exactly.
        recall: as measured by ``meet_target``. None: not measured.
        gpu: copy of the index that is searched instead.
    """

    def __init__(
        self,
        index: Any,
        kind: Kind,
        settings: dict[str, int],
        *,
        compression: Compression = "none",
        vectors: np.ndarray | None = None,
        recall: Recall | None = None,
        gpu: GpuCopy | None = None,
    ) -> None:
        self._index = index
        self.kind: Kind = kind
        self.compression: Compression = compression
        self.settings = settings
        self.recall = recall
        self.n_items = int(index.ntotal)
        self.dim = int(index.d)
        stored = view_stored_vectors(index, kind, compression)
        self._beside = stored is None  # FAISS has no exact vectors: they are kept in a file of their own
        self._vectors = np.asarray(vectors) if stored is None else stored
        self._gpu = gpu

    def vectors(self) -> np.ndarray:
        """Returns the indexed vectors, (n_items, dim) float32, read-only and without a copy."""
        return self._vectors

    def with_settings(self, settings: dict[str, int], recall: Recall | None = None) -> ItemIndex:
        """Makes the same index with other search settings.

        Args:
            settings: replaced settings.
            recall: measured with these settings.
        """
        return ItemIndex(
            self._index,
            self.kind,
            self.settings | settings,
            compression=self.compression,
            vectors=self._vectors,
            recall=recall,
            gpu=self._gpu,
        )

    def search(
        self, queries: np.ndarray, k: int, seen: Rows | None = None, allowed: np.ndarray | None = None
    ) -> ScoredItems:
        """Finds the k best items of every query by inner product, among the allowed and unseen items.

        A flat index answers as ``exact_search`` does, up to the choice among equal scores. The other kinds may miss
        items, but return k items if k are left: short rows are searched exactly. Scores are exact inner products in
        every case.

        Args:
            queries: (n, dim) float32, finite.
            k: length of the lists, k >= 1.
            seen: compressed rows (indptr (n + 1,), item_idx) of the items to leave out.
            allowed: (n_items,) bool, the items that any query may get. None: all. A few allowed items are searched
                exactly. With more, FAISS skips the others.
        Returns:
            item_idx and score (n, k), padded with -1 and -inf if fewer than k items are left.
        Raises:
            DataError: ``allowed`` is not (n_items,) bool, or as ``exact_search``.
            ArtifactError, ValueError: as ``exact_search``.
        """
        queries = check_queries(queries, self.dim, k)
        n = len(queries)
        if seen is not None:
            seen = check_seen(seen, n, self.n_items)
        n_allowed = self.n_items if allowed is None else self._count_allowed(allowed)
        if n == 0 or n_allowed == 0:
            return empty_result(n, k)
        if n_allowed == self.n_items:
            allowed = None
        dense_batch = self.kind == "flat" and n >= BATCH
        few = allowed is not None and (self._gpu is not None or n_allowed <= SELECTIVE * self.n_items)
        if dense_batch or few:
            return self._search_exactly(queries, k, seen, allowed)
        return self._search_faiss(queries, k, seen, allowed, n_allowed)

    def _count_allowed(self, allowed: np.ndarray) -> int:
        """Counts the allowed items. Raises DataError if ``allowed`` does not fit the index."""
        if not isinstance(allowed, np.ndarray) or allowed.dtype != bool or allowed.shape != (self.n_items,):
            raise DataError(f"allowed items must be {self.n_items} bool, one an item, got {np.asarray(allowed).shape}")
        return int(np.count_nonzero(allowed))

    def _search_exactly(
        self, queries: np.ndarray, k: int, seen: Rows | None, allowed: np.ndarray | None
    ) -> ScoredItems:
        """Searches the allowed items exactly.

        Args:
            queries: (n, dim) float32, checked.
            seen: compressed rows, checked.
            allowed: (n_items,) bool. None: all.
        """
        if allowed is None:
            return search_checked(queries, self._vectors, k, seen)
        items = np.flatnonzero(allowed)
        if seen is not None:
            row = np.repeat(np.arange(len(queries)), np.diff(seen[0]))
            inside = allowed[seen[1]]
            counts = np.bincount(row[inside], minlength=len(queries))
            seen = np.concatenate([[0], np.cumsum(counts)]), np.searchsorted(items, seen[1][inside])
        found = search_checked(queries, self._vectors[items], k, seen)
        return ScoredItems(np.where(found.item_idx < 0, -1, items[found.item_idx]), found.score)

    def _search_faiss(
        self, queries: np.ndarray, k: int, seen: Rows | None, allowed: np.ndarray | None, n_allowed: int
    ) -> ScoredItems:
        """Searches by FAISS, and exactly the rows for which FAISS finds too few items.

        Args:
            queries: (n, dim) float32, checked.
            n_allowed: number of allowed items.
        """
        n, result = len(queries), empty_result(len(queries), k)
        n_seen = np.zeros(n, dtype=np.int64) if seen is None else np.diff(seen[0])
        bitmap = None if allowed is None else np.packbits(allowed, bitorder="little")
        # FAISS cannot exclude items by row: fetch as many more as the row has seen, in a few groups of equal length.
        wanted = np.minimum((k + n_seen + SPARE) * self.settings.get("rescore", 1), n_allowed)
        fetch = np.minimum(2 ** np.ceil(np.log2(wanted)).astype(np.int64), n_allowed)
        exact = np.zeros(n, dtype=bool) if self.kind == "flat" else (k + n_seen + SPARE > n_allowed // 4)
        for size in sorted(set(fetch[~exact].tolist())):
            rows = np.flatnonzero((fetch == size) & ~exact)
            step = max(1, PAIRS_AT_ONCE // size)
            if self.kind == "ivf":
                step = min(step, IVF_BATCH)
            for start in range(0, len(rows), step):
                part = rows[start : start + step]
                found = self._fetch(queries[part], size, bitmap, n_allowed)
                self._write_lists(found, queries, part, seen, result)
        if self.kind != "flat":
            exact |= (result.item_idx < 0).any(axis=1)
            rows = np.flatnonzero(exact)
            if len(rows):
                again = self._search_exactly(queries[rows], k, None if seen is None else take_rows(seen, rows), allowed)
                result.item_idx[rows], result.score[rows] = again.item_idx, again.score
        return result

    def _fetch(self, queries: np.ndarray, fetch: int, bitmap: np.ndarray | None, n_allowed: int) -> np.ndarray:
        """Searches by FAISS.

        Args:
            fetch: items per query.
            bitmap: as in ``search_parameters``.
        Returns:
            (n, fetch) item_idx, padded with -1.
        """
        # Visited items are allowed in proportion: visit more, so that as many allowed items are found.
        effort = -(-self.settings.get("nprobe", self.settings.get("ef_search", 0)) * self.n_items // n_allowed)
        effort = min(effort, self.settings["ivf_lists"]) if self.kind == "ivf" else max(effort, fetch)
        parameters, _alive = search_parameters(self.kind, effort, bitmap)
        if self._gpu is None or fetch > GpuCopy.MOST:
            return np.asarray(self._index.search(queries, fetch, params=parameters)[1])
        return self._gpu.search(queries, fetch, parameters)

    def _write_lists(
        self, found: np.ndarray, queries: np.ndarray, rows: np.ndarray, seen: Rows | None, result: ScoredItems
    ) -> None:
        """Computes exact scores of found items and writes the lists into ``result``.

        Args:
            found: (r, any number) item_idx.
            rows: (r,) the rows of ``queries`` and ``result``.
        """
        row, place = np.nonzero(found >= 0)
        item = found[row, place]
        part = None if seen is None else take_rows(seen, rows)
        if part is not None and len(part[1]):
            unseen = not_listed(part, row, item, self.n_items)
            row, item = row[unseen], item[unseen]
        score = pair_scores(queries[rows], self._vectors, row, item)
        if len(rows) == len(queries):
            write_best(result, 0, row, item, score)
            return
        best = empty_result(len(rows), result.item_idx.shape[1])
        write_best(best, 0, row, item, score)
        result.item_idx[rows], result.score[rows] = best.item_idx, best.score

    def save(self, folder: Path) -> None:
        """Writes ``index.faiss`` and ``index.json`` (kind, sizes, settings, recall, sha256) into ``folder``.

        The vectors of IVF and compressed indexes are written beside it, in ``vectors.npy``. An index on a GPU is
        written in its CPU form.

        Args:
            folder: made if it is missing.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path, beside = folder / "index.faiss", folder / "vectors.npy"
        for old in (path, beside):
            old.unlink(missing_ok=True)  # a process that has mapped the file keeps it
        import_faiss().write_index(self._index, str(path))
        if self._beside:
            np.save(beside, self._vectors)
        description = {
            "format_version": FORMAT_VERSION,
            **self.description(),
            "n_items": self.n_items,
            "dim": self.dim,
            "sha256": file_sha256(path),
            "vectors_sha256": file_sha256(beside) if self._beside else None,
        }
        (folder / "index.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")

    def description(self) -> IndexDescription:
        """Returns kind, compression, settings and recall."""
        return {
            "kind": self.kind,
            "compression": self.compression,
            "settings": self.settings,
            "recall": self.recall,
        }


def build_index(
    vectors: np.ndarray,
    *,
    kind: Kind = "flat",
    compression: Compression = "none",
    seed: int = 0,
    device: Device = "cpu",
    **settings: Unpack[IndexSettings],
) -> ItemIndex:
    """Indexes vectors for search by inner product.

    Args:
        vectors: (n_items, d) float32; row i is item_idx i.
        seed: seed of the training of ivf and pq. The links of hnsw also depend on the order of its threads.
        device: device of ``search``; auto: a GPU if faiss finds one and supports the kind.
        settings: in place of DEFAULTS. ivf_lists 0 means 4 sqrt(n_items), or fewer, so that a list has 39 items.
    Raises:
        ArtifactError: the vectors are not finite or not a matrix, or faiss is not installed.
        ConfigError: an unknown kind, or settings that do not fit the vectors.
        TypeError: an unknown setting.
    Source: HNSW, Malkov & Yashunin 2018, arXiv:1603.09320. IVF and PQ, Jegou et al. 2011, doi:10.1109/TPAMI.2010.57.
    """
    if kind not in get_args(Kind) or compression not in get_args(Compression):
        raise ConfigError(
            f"index.kind must be one of {', '.join(get_args(Kind))} and index.compression one of "
            f"{', '.join(get_args(Compression))}, got {kind!r} and {compression!r}"
        )
    if (kind, compression) not in CLASSES:
        raise ConfigError("index.kind 'flat' is exact and takes no compression; set index.kind = 'ivf' or 'hnsw'.")
    vectors = check_vectors(vectors)
    if len(vectors) == 0:  # nothing to train on
        return ItemIndex(import_faiss().IndexFlatIP(vectors.shape[1]), "flat", {})
    used = _select_settings(len(vectors), kind, compression, settings)
    index = train_index(vectors, kind, compression, used, seed)
    gpu = copy_to_device(index, kind, device)
    return ItemIndex(index, kind, used, compression=compression, vectors=vectors, gpu=gpu)


def _select_settings(n_items: int, kind: Kind, compression: Compression, given: IndexSettings) -> dict[str, int]:
    """Selects the settings of a kind, given or default. Raises TypeError for an unknown one."""
    unknown = sorted(set(given) - set(DEFAULTS))
    if unknown:
        raise TypeError(f"an index has no setting {unknown[0]!r}; known: {', '.join(DEFAULTS)}")
    chosen: IndexSettings = {**DEFAULTS, **given}
    used: dict[str, int] = {}
    if kind == "hnsw":
        used = {name: chosen[name] for name in ("hnsw_m", "ef_construction", "ef_search")}
    if kind == "ivf":
        lists = chosen["ivf_lists"] or max(1, min(int(4 * n_items**0.5), n_items // 39))
        used = {"ivf_lists": lists, "nprobe": min(chosen["nprobe"], lists)}
    if compression != "none":
        used["rescore"] = chosen["rescore"]
    if compression == "pq":
        used["pq_bytes"] = chosen["pq_bytes"]
    return used
