"""ItemIndex: candidate retrieval by inner product over a FAISS index: flat (exact), IVF or HNSW (approximate)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np

from reckg.arrays.ragged_rows import Rows, not_listed, take_rows
from reckg.errors import ArtifactError, ConfigError, DataError
from reckg.files.file_hash import file_sha256
from reckg.retrieval.exact import (
    checked_queries,
    checked_seen,
    checked_vectors,
    pair_scores,
    search_checked,
    write_best,
)
from reckg.retrieval.faiss_index import (
    CLASSES,
    Compression,
    Device,
    Kind,
    OnGpu,
    faiss_module,
    mapped,
    on_device,
    search_parameters,
    stored_vectors,
    trained,
)
from reckg.retrieval.scored_items import ScoredItems, empty_result

FORMAT_VERSION = 2
READ_VERSIONS = (1, 2)  # 1: flat or hnsw without compression, recall not measured
SPARE = 8  # candidates beyond the wanted ones, so that FAISS's rounding does not decide which comes in last
PAIRS_AT_ONCE = 2**20
IVF_BATCH = 16  # from 20 on, FAISS takes a matrix product, whose rounding may choose other lists than for one query
BATCH = 32  # from this many queries on, one matrix product is several times faster than FAISS's flat search
SELECTIVE = (
    0.15  # up to this share of allowed items, they are searched exactly: measured, docs/measurements/retrieval.md
)


class ItemIndex:
    """An immutable index over the items' vectors; row i is item_idx i. Searching is safe from several threads.

    ``settings``: hnsw_m, ef_construction, ef_search of hnsw; ivf_lists, nprobe of ivf; of compressed ones also rescore
    (candidates whose exact score is computed, for each that is wanted) and, of pq, pq_bytes. ``recall``: what
    ``meet_target`` measured, or None.
    """

    def __init__(
        self,
        index: Any,
        kind: Kind,
        settings: dict[str, int],
        *,
        compression: Compression = "none",
        vectors: np.ndarray | None = None,
        recall: dict[str, Any] | None = None,
        gpu: OnGpu | None = None,
    ) -> None:
        self._index = index
        self.kind: Kind = kind
        self.compression: Compression = compression
        self.settings = settings
        self.recall = recall
        self.n_items = int(index.ntotal)
        self.dim = int(index.d)
        stored = stored_vectors(index, kind, compression)
        self._beside = stored is None  # FAISS has no vectors to look at: they are kept in a file of their own
        self._vectors = np.asarray(vectors) if stored is None else stored
        self._gpu = gpu

    def vectors(self) -> np.ndarray:
        """(n_items, dim) float32: the indexed vectors, read-only and without a copy."""
        return self._vectors

    def with_settings(self, settings: dict[str, int], recall: dict[str, Any] | None = None) -> ItemIndex:
        """The same index, searched with other settings."""
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
        """The k best items of every query by inner product, of those allowed and without those it has seen.

        A flat index answers as ``exact_search`` does, up to the choice among equal scores. The others may miss items,
        but never answer fewer than k where k are left: such rows are searched exactly. Scores are exact inner
        products in every case.

        Args:
            queries: (n, dim) float32, finite.
            k: length of the lists, k >= 1.
            seen: compressed rows (indptr (n + 1,), item_idx) of the items to leave out.
            allowed: (n_items,) bool, the items that any query may get; None: all. Where they are few they are
                searched exactly, else FAISS passes over the others.
        Returns:
            item_idx and score (n, k), padded with -1 and -inf where fewer than k items are left.
        Raises:
            DataError: also where ``allowed`` is not (n_items,) bool.
            DataError, ArtifactError, ValueError: as ``exact_search``.
        """
        queries = checked_queries(queries, self.dim, k)
        n = len(queries)
        if seen is not None:
            seen = checked_seen(seen, n, self.n_items)
        n_allowed = self.n_items if allowed is None else self._checked_allowed(allowed)
        if n == 0 or n_allowed == 0:
            return empty_result(n, k)
        if n_allowed == self.n_items:
            allowed = None
        dense_batch = self.kind == "flat" and n >= BATCH
        few = allowed is not None and (self._gpu is not None or n_allowed <= SELECTIVE * self.n_items)
        if dense_batch or few:
            return self._search_exactly(queries, k, seen, allowed)
        return self._search_faiss(queries, k, seen, allowed, n_allowed)

    def _checked_allowed(self, allowed: np.ndarray) -> int:
        """How many items are allowed."""
        if not isinstance(allowed, np.ndarray) or allowed.dtype != bool or allowed.shape != (self.n_items,):
            raise DataError(f"allowed items must be {self.n_items} bool, one an item, got {np.asarray(allowed).shape}")
        return int(np.count_nonzero(allowed))

    def _search_exactly(
        self, queries: np.ndarray, k: int, seen: Rows | None, allowed: np.ndarray | None
    ) -> ScoredItems:
        """Exact search over the allowed items alone."""
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
        n, result = len(queries), empty_result(len(queries), k)
        n_seen = np.zeros(n, dtype=np.int64) if seen is None else np.diff(seen[0])
        bitmap = None if allowed is None else np.packbits(allowed, bitorder="little")
        # FAISS knows no exclusion by row: fetch as many more as the row has seen, in a few groups of like length.
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
                found = self._found(queries[part], size, bitmap, n_allowed)
                self._write(found, queries, part, seen, result)
        if self.kind != "flat":
            exact |= (result.item_idx < 0).any(axis=1)
            rows = np.flatnonzero(exact)
            if len(rows):
                again = self._search_exactly(queries[rows], k, None if seen is None else take_rows(seen, rows), allowed)
                result.item_idx[rows], result.score[rows] = again.item_idx, again.score
        return result

    def _found(self, queries: np.ndarray, fetch: int, bitmap: np.ndarray | None, n_allowed: int) -> np.ndarray:
        """(n, fetch) item_idx from FAISS, -1 where it finds none."""
        # What is looked at holds allowed items by their share: look at more, so that as many are found.
        effort = -(-self.settings.get("nprobe", self.settings.get("ef_search", 0)) * self.n_items // n_allowed)
        effort = min(effort, self.settings["ivf_lists"]) if self.kind == "ivf" else max(effort, fetch)
        parameters, _alive = search_parameters(self.kind, effort, bitmap)
        if self._gpu is None or fetch > OnGpu.MOST:
            return self._index.search(queries, fetch, params=parameters)[1]
        return self._gpu.search(queries, fetch, parameters)

    def _write(
        self, found: np.ndarray, queries: np.ndarray, rows: np.ndarray, seen: Rows | None, result: ScoredItems
    ) -> None:
        """Scores what was found for some rows exactly and writes their lists into ``result``."""
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

        The vectors of IVF and compressed indexes are beside them, in ``vectors.npy``. An index on a GPU is written in
        its CPU form.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path, beside = folder / "index.faiss", folder / "vectors.npy"
        for old in (path, beside):
            old.unlink(missing_ok=True)  # who has it mapped keeps it
        faiss_module().write_index(self._index, str(path))
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

    def description(self) -> dict[str, Any]:
        """kind, compression, settings, and recall: of what was measured, or None."""
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
    hnsw_m: int = 32,
    ef_construction: int = 200,
    ef_search: int = 256,
    ivf_lists: int = 0,
    nprobe: int = 16,
    pq_bytes: int = 16,
    rescore: int = 4,
    seed: int = 0,
    device: Device = "cpu",
) -> ItemIndex:
    """Indexes (n_items, d) float32 vectors, item_idx by row, for search by inner product.

    Args:
        ivf_lists: 0: 4 sqrt(n_items), or as many fewer as leave 39 items a list.
        seed: of the training of ivf and pq. The links of hnsw depend on which of several threads comes first.
        device: where ``search`` runs; auto: a GPU where faiss finds one and has the kind.
    Raises:
        ArtifactError: the vectors are not finite or not a matrix; faiss is not installed.
        ConfigError: an unknown kind, or settings that do not fit the vectors.
    Source: HNSW, Malkov & Yashunin 2018, arXiv:1603.09320. IVF and PQ, Jegou et al. 2011, doi:10.1109/TPAMI.2010.57.
    """
    if kind not in get_args(Kind) or compression not in get_args(Compression):
        raise ConfigError(
            f"index.kind must be one of {', '.join(get_args(Kind))} and index.compression one of "
            f"{', '.join(get_args(Compression))}, got {kind!r} and {compression!r}"
        )
    if (kind, compression) not in CLASSES:
        raise ConfigError("index.kind 'flat' is exact and takes no compression; set index.kind = 'ivf' or 'hnsw'.")
    vectors = checked_vectors(vectors)
    if len(vectors) == 0:  # nothing to train on
        return ItemIndex(faiss_module().IndexFlatIP(vectors.shape[1]), "flat", {})
    settings: dict[str, int] = {}
    if kind == "hnsw":
        settings = {"hnsw_m": hnsw_m, "ef_construction": ef_construction, "ef_search": ef_search}
    if kind == "ivf":
        n = len(vectors)
        lists = ivf_lists or max(1, min(int(4 * n**0.5), n // 39))
        settings = {"ivf_lists": lists, "nprobe": min(nprobe, lists)}
    if compression != "none":
        settings["rescore"] = rescore
    if compression == "pq":
        settings["pq_bytes"] = pq_bytes
    index = trained(vectors, kind, compression, settings, seed)
    gpu = on_device(index, kind, device)
    return ItemIndex(index, kind, settings, compression=compression, vectors=vectors, gpu=gpu)


def load_index(folder: Path, device: Device = "cpu", *, checked: bool = False) -> ItemIndex:
    """Opens an index that ``ItemIndex.save`` wrote: read-only, its files mapped into memory.

    Args:
        checked: the caller has checked the hashes of the folder's files; else they are checked here.
    Raises:
        ArtifactError: a file is missing, was changed, or does not fit its description.
        ConfigError: device is gpu, and there is none.
    """
    description = _read_description(folder / "index.json")
    path, beside = folder / "index.faiss", folder / "vectors.npy"
    if not checked:
        _check_hash(path, description["sha256"])
    index = mapped(path)
    kind, compression = description["kind"], description.get("compression", "none")
    expected = getattr(faiss_module(), CLASSES[kind, compression])
    if type(index) is not expected or index.metric_type != faiss_module().METRIC_INNER_PRODUCT:
        said = kind if compression == "none" else f"{kind} with {compression}"
        raise ArtifactError(f"{path} holds {type(index).__name__}, index.json says {said}. Run 'reckg index' again.")
    if (index.ntotal, index.d) != (description["n_items"], description["dim"]):
        raise ArtifactError(
            f"{path} has {index.ntotal} vectors of {index.d} dimensions, index.json says {description['n_items']} of "
            f"{description['dim']}. Run 'reckg index' again."
        )
    vectors = None
    if description.get("vectors_sha256"):
        if not checked:
            _check_hash(beside, description["vectors_sha256"])
        vectors = np.load(beside, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    if (vectors is None) != (stored_vectors(index, kind, compression) is not None) or (
        vectors is not None and (vectors.shape != (index.ntotal, index.d) or vectors.dtype != np.float32)
    ):
        raise ArtifactError(f"{beside} does not fit {path}. Run 'reckg index' again.")
    return ItemIndex(
        index,
        kind,
        description["settings"],
        compression=compression,
        vectors=vectors,
        recall=description.get("recall"),
        gpu=on_device(index, kind, device),
    )


def _check_hash(path: Path, expected: str) -> None:
    """Before any parser reads the file: FAISS's does not survive every damaged one."""
    if not path.is_file():
        raise ArtifactError(f"{path} is missing. Run 'reckg index' again.")
    found = file_sha256(path)
    if found != expected:
        raise ArtifactError(
            f"{path} is damaged: its sha256 is {found[:12]}, index.json says {str(expected)[:12]}. "
            "Run 'reckg index' again."
        )


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}. Run 'reckg index' again.") from error
    needed = {"format_version", "kind", "n_items", "dim", "settings", "sha256"}
    if not isinstance(description, dict) or not needed <= set(description):
        raise ArtifactError(f"{path} lacks some of {sorted(needed)}. Run 'reckg index' again.")
    version, kind, compression = (description.get(name) for name in ("format_version", "kind", "compression"))
    if version not in READ_VERSIONS or (kind, compression or "none") not in CLASSES:
        raise ArtifactError(
            f"{path} has format {version!r} and kind {kind!r} with compression {compression!r}; this version of reckg "
            f"reads the formats {READ_VERSIONS} and the kinds {', '.join(get_args(Kind))}. Run 'reckg index' again."
        )
    efforts = {"hnsw": {"ef_search"}, "ivf": {"ivf_lists", "nprobe"}}
    lacking = efforts.get(str(kind), set()) - set(description["settings"])
    if lacking:
        raise ArtifactError(f"{path} lacks settings.{min(lacking)}. Run 'reckg index' again.")
    return description
