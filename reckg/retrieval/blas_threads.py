"""One thread for each matrix product while several products run side by side."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import LibController, ThreadpoolController

_lock = threading.Lock()
_inside = 0  # running blocks
_before: list[int] = []  # threads of each library, restored by the last block that ends


@contextmanager
def one_blas_thread() -> Iterator[int]:
    """Limits BLAS to one thread inside the block, in the whole process. Yields the number of threads before.

    Blocks may overlap in several threads. The number is restored when the last block ends. The bits of a product may
    depend on the number, so code that needs equal bits may not use this.
    """
    global _inside, _before
    libraries = _libraries()
    with _lock:
        if _inside == 0:
            _before = [library.num_threads for library in libraries]
            for library in libraries:
                library.set_num_threads(1)
        _inside += 1
        threads = max(_before, default=1)
    try:
        yield threads
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                for library, number in zip(libraries, _before, strict=True):
                    library.set_num_threads(number)


@cache
def _libraries() -> list[LibController]:
    """Finds NumPy's own BLAS among the loaded libraries, or else every BLAS. Cached at the first call."""
    loaded = ThreadpoolController().select(user_api="blas").lib_controllers
    own = [library for library in loaded if "numpy" in str(library.filepath)]
    return own or list(loaded)
