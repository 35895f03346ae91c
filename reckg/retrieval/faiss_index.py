"""FAISS indexes of every kind: made, trained, checked, copied, moved to a GPU, and the parameters of a search."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Literal

import numpy as np

from reckg.errors import ArtifactError, ConfigError

Kind = Literal["flat", "ivf", "hnsw"]
Compression = Literal["none", "sq8", "pq"]
Device = Literal["auto", "cpu", "gpu"]

CLASSES: dict[tuple[Kind, Compression], str] = {
    ("flat", "none"): "IndexFlatIP",
    ("ivf", "none"): "IndexIVFFlat",
    ("ivf", "sq8"): "IndexIVFScalarQuantizer",
    ("ivf", "pq"): "IndexIVFPQ",
    ("hnsw", "none"): "IndexHNSWFlat",
    ("hnsw", "sq8"): "IndexHNSWSQ",
    ("hnsw", "pq"): "IndexHNSWPQ",
}
CODES = 256  # of a product quantizer's part: one byte


def faiss_module() -> Any:
    """The faiss module, imported when it is needed. Raises ArtifactError with both ways to install it."""
    try:
        import faiss
    except ImportError as error:
        raise ArtifactError(
            f"faiss cannot be imported ({error}): install it with pip install 'reckg[cpu]' (faiss-cpu) "
            "or pip install 'reckg[gpu]' (faiss-gpu)."
        ) from error
    return faiss


def trained(vectors: np.ndarray, kind: Kind, compression: Compression, settings: dict[str, int], seed: int) -> Any:
    """A FAISS index of (n, d) float32 vectors, n >= 1, trained on them and holding them.

    Raises:
        ConfigError: pq_bytes does not divide d, or there are too few vectors to train on.
    """
    faiss = faiss_module()
    n, dim = vectors.shape
    inner = faiss.METRIC_INNER_PRODUCT
    pq_bytes, lists, links = (settings.get(name, 0) for name in ("pq_bytes", "ivf_lists", "hnsw_m"))
    if compression == "pq" and (dim % pq_bytes or n < CODES):
        raise ConfigError(
            f"index.compression 'pq' with {pq_bytes} bytes a vector needs a dimension that they divide and "
            f"{CODES} items; there are {n} items of {dim} dimensions. Set index.pq_bytes, or index.compression = 'sq8'."
        )
    if kind == "ivf" and not 1 <= lists <= n:
        raise ConfigError(f"index.ivf_lists must be 1..{n}, the number of items, got {lists}")
    if kind == "flat":
        index = faiss.IndexFlatIP(dim)
    elif kind == "hnsw":
        index = {
            "none": lambda: faiss.IndexHNSWFlat(dim, links, inner),
            "sq8": lambda: faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_8bit, links, inner),
            "pq": lambda: faiss.IndexHNSWPQ(dim, pq_bytes, links, 8, inner),
        }[compression]()
        index.hnsw.efConstruction = settings["ef_construction"]
        if compression == "pq":
            _set_up(faiss.downcast_index(index.storage).pq, seed)
    else:
        coarse = faiss.IndexFlatIP(dim)
        index = {
            "none": lambda: faiss.IndexIVFFlat(coarse, dim, lists, inner),
            "sq8": lambda: faiss.IndexIVFScalarQuantizer(coarse, dim, lists, faiss.ScalarQuantizer.QT_8bit, inner),
            "pq": lambda: faiss.IndexIVFPQ(coarse, dim, lists, pq_bytes, 8, inner),
        }[compression]()
        index.referenced_objects = [coarse]  # lives as long as the index
        index.cp.seed, index.cp.niter = seed, 10
        index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, 64
        if compression == "pq":
            index.do_polysemous_training = False
            _set_up(index.pq, seed)
    index.train(vectors)
    index.add(vectors)
    return index


def _set_up(quantizer: Any, seed: int) -> None:
    quantizer.cp.seed, quantizer.cp.min_points_per_centroid = seed, 1


def search_parameters(kind: Kind, effort: int, bitmap: np.ndarray | None = None) -> tuple[Any, Any]:
    """FAISS's parameters, and what must live as long as they are used.

    Args:
        effort: ef_search of hnsw, nprobe of ivf.
        bitmap: (ceil(n / 8),) uint8 with bit i of byte i // 8 set where item i may be found; None: all may.
    """
    if kind == "flat" and bitmap is None:
        return None, None
    faiss = faiss_module()
    selector = None if bitmap is None else faiss.IDSelectorBitmap(bitmap)
    if kind == "hnsw":
        return faiss.SearchParametersHNSW(efSearch=effort, sel=selector), selector
    if kind == "ivf":
        return faiss.SearchParametersIVF(nprobe=effort, sel=selector), selector
    return faiss.SearchParameters(sel=selector), selector


def stored_vectors(index: Any, kind: Kind, compression: Compression) -> np.ndarray | None:
    """(n, d) float32 read-only view of the vectors that a flat or an uncompressed HNSW index holds; None: no such."""
    if compression != "none" or kind == "ivf":
        return None
    if index.ntotal == 0:
        return np.zeros((0, index.d), dtype=np.float32)
    return np.asarray(_StoredVectors(index, kind))


class _StoredVectors:
    """The vectors that FAISS keeps, for NumPy to look at; keeps the index alive as long as an array does."""

    def __init__(self, index: Any, kind: Kind) -> None:
        faiss = faiss_module()
        flat = index if kind == "flat" else faiss.downcast_index(index.storage)
        view = faiss.rev_swig_ptr(flat.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)
        view.flags.writeable = False
        self.__array_interface__ = view.__array_interface__
        self._index = index


def mapped(path: Path) -> Any:
    """The index in a file, read-only: its arrays are the file's pages, which processes share. Raises ArtifactError."""
    faiss = faiss_module()
    try:
        return downcast(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC))
    except RuntimeError as error:
        raise ArtifactError(f"{path} cannot be read by faiss: {error}. Run 'reckg index' again.") from error


def downcast(index: Any) -> Any:
    """The index as an object of its own class."""
    own = faiss_module().downcast_index(index)
    own.referenced_objects = [index]  # the memory is freed with that object
    return own


class OnGpu:
    """A copy of an index on the first GPU. FAISS's GPU indexes answer one thread at a time."""

    MOST = 2048  # candidates of a query that FAISS finds there

    def __init__(self, index: Any) -> None:
        faiss = faiss_module()
        self._resources = faiss.StandardGpuResources()
        self._index = faiss.index_cpu_to_gpu(self._resources, 0, index)
        self._lock = threading.Lock()

    def search(self, queries: np.ndarray, k: int, parameters: Any) -> np.ndarray:
        """(n, k) item_idx, -1 where there is none."""
        with self._lock:
            return self._index.search(queries, k, params=parameters)[1]


def on_device(index: Any, kind: Kind, device: Device) -> OnGpu | None:
    """A copy of the index on a GPU; None where the CPU searches, as it always does HNSW.

    Raises:
        ConfigError: device is gpu, and faiss has none, or kind is hnsw.
    """
    there = n_gpus() > 0 and kind != "hnsw"
    if device == "gpu" and not there:
        faiss = faiss_module()
        why = "FAISS has no HNSW on GPUs" if kind == "hnsw" else f"this faiss ({faiss.__version__}) finds no GPU"
        raise ConfigError(f"index.device is 'gpu', but {why}; set index.device = 'auto' or another index.kind.")
    return OnGpu(index) if there and device != "cpu" else None


def n_gpus() -> int:
    """GPUs that the installed faiss can use; 0 with faiss-cpu."""
    faiss = faiss_module()
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0
