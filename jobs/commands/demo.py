"""The whole way on the embedded data set: generate, run every stage, serve, and ask as a client would."""

from __future__ import annotations

import json
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jobs.commands.describe import summary
from reckg.config.run_config import Config, read_config
from reckg.errors import ArtifactError
from reckg.files.atomic_folder import write_atomically
from reckg.pipeline.run.code_hash import code_sha256
from reckg.pipeline.run.pipeline import run_pipeline

USERS, ITEMS, SEED = 2000, 1200, 0
CONFIG = Path(__file__).resolve().parents[1] / "configs" / "bookshop.toml"
HISTORY_LENGTH = 12  # the user who is shown has about this many interactions
START_TIMEOUT_S = 60.0


def demo(out: Path, *, users: int = USERS, items: int = ITEMS, config: Config | None = None) -> None:
    """Runs the demonstration in a folder; finished stages there are used again.

    Args:
        out: folder; gets ``dataset`` and ``run``.
        users, items: size of the bookshop.
        config: of the run; None: jobs/configs/bookshop.toml.
    Raises:
        ReckgError: from a stage, or when the server does not start.
    """
    began = time.perf_counter()
    dataset = make_dataset(out, users, items)
    state = run_pipeline(config or read_config(CONFIG), dataset, out / "run", overwrite=True)
    print("\n" + summary(out / "run", state))
    show_recommendations(out / "run" / "bundle")
    print(f"\nthe demonstration took {time.perf_counter() - began:.0f} s")


def make_dataset(out: Path, users: int, items: int) -> Path:
    """Writes the bookshop, unless the same bookshop is there already.

    Args:
        out: folder that gets ``dataset``.
        users: number of users.
        items: number of items.
    Returns:
        The dataset folder.
    """
    dataset, note = out / "dataset", out / "dataset.json"
    wanted = {"users": users, "items": items, "seed": SEED, "code": code_sha256("reckg.data.bookshop.write")}
    if dataset.is_dir() and note.is_file() and json.loads(note.read_text(encoding="utf-8")) == wanted:
        print(f"data: the bookshop in {dataset} is up to date")
        return dataset
    from reckg.data.bookshop.write import write_bookshop

    rows = write_bookshop(dataset, users=users, items=items, seed=SEED, overwrite=True)
    write_atomically(note, json.dumps(wanted) + "\n")
    print(f"data: a bookshop in {dataset}: " + ", ".join(f"{count:,} {table}" for table, count in rows.items()))
    return dataset


def show_recommendations(bundle_folder: Path) -> None:
    """Starts a server, asks it over gRPC for a user's recommendations, prints them with titles, and stops it.

    Args:
        bundle_folder: bundle to serve.
    """
    from serving.client import RecommenderClient
    from serving.client.command import format_response

    user_id, titles = some_user(bundle_folder)
    with running_server(bundle_folder) as address:
        print(f"\nserver at {address}; user {user_id} has taken, latest last:")
        for title in titles:
            print(f"      {title}")
        with RecommenderClient(address, timeout_s=10.0) as client:
            began = time.perf_counter()
            response = client.recommend(user_id, k=10)
            latency_ms = (time.perf_counter() - began) * 1000
        print(f"recommended over gRPC in {latency_ms:.1f} ms:\n{format_response(response)}")
    print("server stopped")


def some_user(bundle_folder: Path) -> tuple[str, list[str]]:
    """Picks the first user with a history of about HISTORY_LENGTH items.

    Args:
        bundle_folder: bundle to read.
    Returns:
        The user's id, and the titles of its last items.
    """
    from reckg.bundle.read import load_bundle

    bundle = load_bundle(bundle_folder, verify=False)  # the server verifies it
    lengths = np.diff(bundle.history.indptr)
    user_idx = int(np.argmin(np.abs(lengths - HISTORY_LENGTH)))
    titles = bundle.titles(bundle.history.items(user_idx)[-HISTORY_LENGTH:])
    return bundle.user_ids.raw(np.array([user_idx]))[0], titles


@contextmanager
def running_server(bundle_folder: Path) -> Iterator[str]:
    """A server process on a free loopback port, as its address; stopped by SIGTERM at the end.

    Raises:
        ArtifactError: the server did not start; the message has its last words.
    """
    command = [sys.executable, "-m", "jobs.cli", "serve", str(bundle_folder), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    reader = threading.Thread(target=_read_lines, args=(process.stdout, lines), daemon=True)
    reader.start()
    try:
        yield _await_address(lines)
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join()
        if process.stdout is not None:
            process.stdout.close()


def _read_lines(stream: Any, lines: queue.SimpleQueue[str | None]) -> None:
    for line in stream:
        lines.put(line.rstrip("\n"))
    lines.put(None)


def _await_address(lines: queue.SimpleQueue[str | None]) -> str:
    """Waits for the line that ends with the server's address."""
    printed: list[str] = []
    deadline = time.monotonic() + START_TIMEOUT_S
    while (left := deadline - time.monotonic()) > 0:
        try:
            line = lines.get(timeout=left)
        except queue.Empty:
            break
        if line is None:
            break
        found = re.fullmatch(r"reckg serves bundle .* at (\S+:\d+)", line)
        if found:
            return found[1]
        printed.append(line)
    raise ArtifactError(
        f"the server did not start within {START_TIMEOUT_S:.0f} s; its last lines: " + " | ".join(printed[-3:])
    )
