"""One thread for each matrix product while several products run side by side."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import LibController, ThreadpoolController

_lock = threading.Lock()
_inside = 0  # blocks that run now
_before: list[int] = []  # threads of each library, to be given back by the last block that ends


@contextmanager
def one_blas_thread() -> Iterator[int]:
    """BLAS uses one thread inside the block, in the whole process; yields how many it used before.

    Blocks may overlap in several threads: the number is given back when the last of them ends. The bits of a product
    may depend on it, so what needs them may not use this.
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
    """NumPy's BLAS: the libraries loaded at the first call whose file lies with NumPy, or else every BLAS."""
    loaded = ThreadpoolController().select(user_api="blas").lib_controllers
    own = [library for library in loaded if "numpy" in str(library.filepath)]
    return own or list(loaded)
