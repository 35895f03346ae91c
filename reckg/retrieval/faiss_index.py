"""FAISS indexes of every kind: training, mapped files, GPU copies, and the parameters of a search."""

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
CODES = 256  # codes in a byte, per part of a product quantizer


def import_faiss() -> Any:
    """Imports faiss when it is needed. Raises ArtifactError with both ways to install it."""
    try:
        import faiss
    except ImportError as error:
        raise ArtifactError(
            f"faiss cannot be imported ({error}): install it with pip install 'reckg[cpu]' (faiss-cpu) "
            "or pip install 'reckg[gpu]' (faiss-gpu)."
        ) from error
    return faiss


def train_index(vectors: np.ndarray, kind: Kind, compression: Compression, settings: dict[str, int], seed: int) -> Any:
    """Trains a FAISS index on vectors and adds the vectors to it.

    Args:
        vectors: (n, d) float32, n >= 1.
        settings: pq_bytes, ivf_lists, hnsw_m and ef_construction, as the kind needs.
        seed: seed of the training of ivf and pq.
    Returns:
        FAISS's index.
    Raises:
        ConfigError: pq_bytes does not divide d, or too few vectors to train on.
    """
    faiss = import_faiss()
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
    """Sets the seed of a product quantizer and accepts few vectors per centroid."""
    quantizer.cp.seed, quantizer.cp.min_points_per_centroid = seed, 1


def search_parameters(kind: Kind, effort: int, bitmap: np.ndarray | None = None) -> tuple[Any, Any]:
    """Makes FAISS's parameters of a search.

    Args:
        effort: ef_search of hnsw, nprobe of ivf.
        bitmap: (ceil(n / 8),) uint8, little-endian bits: 1 for items that may be found. None: all may.
    Returns:
        The parameters, and an object that must live as long as they do.
    """
    if kind == "flat" and bitmap is None:
        return None, None
    faiss = import_faiss()
    selector = None if bitmap is None else faiss.IDSelectorBitmap(bitmap)
    if kind == "hnsw":
        return faiss.SearchParametersHNSW(efSearch=effort, sel=selector), selector
    if kind == "ivf":
        return faiss.SearchParametersIVF(nprobe=effort, sel=selector), selector
    return faiss.SearchParameters(sel=selector), selector


def view_stored_vectors(index: Any, kind: Kind, compression: Compression) -> np.ndarray | None:
    """Views the vectors that a flat or an uncompressed HNSW index holds.

    Returns:
        (n, d) float32, read-only. None: another kind, without vectors.
    """
    if compression != "none" or kind == "ivf":
        return None
    if index.ntotal == 0:
        return np.zeros((0, index.d), dtype=np.float32)
    return np.asarray(_StoredVectors(index, kind))


class _StoredVectors:
    """Vectors in FAISS's memory for NumPy. An array over them keeps the index alive."""

    def __init__(self, index: Any, kind: Kind) -> None:
        faiss = import_faiss()
        flat = index if kind == "flat" else faiss.downcast_index(index.storage)
        view = faiss.rev_swig_ptr(flat.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)
        view.flags.writeable = False
        self.__array_interface__ = view.__array_interface__
        self._index = index


def map_index(path: Path) -> Any:
    """Maps an index file read-only: processes share the pages of its arrays. Raises ArtifactError."""
    faiss = import_faiss()
    try:
        return downcast(faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC))
    except RuntimeError as error:
        raise ArtifactError(f"{path} cannot be read by faiss: {error}. Run 'reckg index' again.") from error


def downcast(index: Any) -> Any:
    """Returns the index as an object of its own class."""
    own = import_faiss().downcast_index(index)
    own.referenced_objects = [index]  # the memory is freed with that object
    return own


class GpuCopy:
    """Copy of an index on the first GPU. FAISS's GPU indexes answer one thread at a time."""

    MOST = 2048  # candidates per query, FAISS's own limit on GPUs

    def __init__(self, index: Any) -> None:
        faiss = import_faiss()
        self._resources = faiss.StandardGpuResources()
        self._index = faiss.index_cpu_to_gpu(self._resources, 0, index)
        self._lock = threading.Lock()

    def search(self, queries: np.ndarray, k: int, parameters: Any) -> np.ndarray:
        """Searches the copy.

        Args:
            queries: (n, d) float32.
            parameters: as ``search_parameters`` returns them.
        Returns:
            (n, k) item_idx, padded with -1.
        """
        with self._lock:
            return np.asarray(self._index.search(queries, k, params=parameters)[1])


def copy_to_device(index: Any, kind: Kind, device: Device) -> GpuCopy | None:
    """Copies an index to a GPU. HNSW is always searched on the CPU.

    Args:
        device: auto: a GPU if faiss finds one and supports the kind.
    Returns:
        None: the CPU searches.
    Raises:
        ConfigError: device is gpu, and faiss has none, or kind is hnsw.
    """
    there = count_gpus() > 0 and kind != "hnsw"
    if device == "gpu" and not there:
        faiss = import_faiss()
        why = "FAISS has no HNSW on GPUs" if kind == "hnsw" else f"this faiss ({faiss.__version__}) finds no GPU"
        raise ConfigError(f"index.device is 'gpu', but {why}; set index.device = 'auto' or another index.kind.")
    return GpuCopy(index) if there and device != "cpu" else None


def count_gpus() -> int:
    """Counts the GPUs that the installed faiss can use; 0 with faiss-cpu."""
    faiss = import_faiss()
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0
