"""New items in a running server: a worker's cost to add them, the cost of its answers afterwards, and the delay until
they are recommended.

The catalog is made of random vectors of 64 dimensions and rows of 20 neighbours. ``apply_N_cpu_ms`` is the processor
time of taking N upserts that are embedded already (median of --rounds), ``answer_ratio`` how many times as long an
answer takes with 551 items added as without (median over interleaved rounds). ``visible_s`` is the time from the reply
to UpsertItems until two servers over one SQLite store recommend the item, median and worst of --items-sent items, with
the embedder in a process of its own; the first is not counted. ``embedder_ready_s`` is how long that process takes from
its start until it has loaded torch and the text encoder (--encoder: a folder, default a tiny one with random weights),
and ``embedder_gb`` the most memory it had.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from reckg.bundle.bundle import Bundle
from reckg.data.history import History
from reckg.data.ids import IdMap
from reckg.inductive.embedder import Inductive
from reckg.live.changes import CatalogChange, EmbeddedItem
from reckg.live.new_item import NewItem
from reckg.live.overlay import Overlay
from reckg.ranking.tables.feature_tables import ITEM_COLUMNS, FeatureTables
from reckg.recommend.golden import save_with_golden
from reckg.recommend.recommender import Recommender
from reckg.retrieval.index import build_index
from tests import small_world
from tests.benchmarks.measure import ROOT, Result, beside, finish, interleaved, parser, speedup
from tests.small_model import write_encoder

DIM, USERS, NEAR = 64, 1000, 20
COLUMNS = {"text": ["title"], "categorical": ["genre"], "number": ["price"], "list": []}
ITEM = {"title": "a title", "genre": "3", "price": 1.0}


def random_bundle(n: int, rng: np.random.Generator) -> Bundle:
    """Makes a bundle of n random items without a ranker; only its size matters."""
    vectors = rng.standard_normal((n, DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids, entities = [f"i{number}" for number in range(n)], n // 10 + 100
    near = _rows(n, n, NEAR, rng)
    half = vectors.astype(np.float16)
    items = {"item_id": ids, "title": ids, "genre": rng.integers(0, 30, n).astype(str), "price": rng.random(n)}
    nothing = np.zeros(0, dtype=np.int64)
    tables = FeatureTables(
        order="ahead",
        now=None,
        graph_dim=DIM,
        users=np.zeros((USERS, 2), dtype=np.float32),
        items=rng.random((n, len(ITEM_COLUMNS)), dtype=np.float32),
        numbers=rng.random((n, 1), dtype=np.float32),
        vectors=half,
        text=half,
        factors=np.zeros((n, 0), dtype=np.float32),
        factor_gram=np.zeros((0, 0)),
        event_keys=nothing,
        event_times=nothing,
        popular=np.arange(n),
        popular_score=np.zeros(n, dtype=np.float32),
        entity_length=np.ones(n, dtype=np.float32),
        entities=_rows(n, entities, 5, rng),
        cooccurrence=near,
        walk=near,
        entity_neighbours=near,
        user_entities=sparse.csr_matrix((USERS, 5)),
        attribute_lift=sparse.csr_matrix((5, n)),
        linear=None,
        text_neighbours=near,
    )
    info = {"n_users": USERS, "n_items": n, "relations": ["genre"], "aggregator": "sum", "combine": "mean"}
    info |= {"interaction_share": 0.5, "half_life": 0, "item_columns": COLUMNS, "numbers": {}, "text": None}
    info["user_columns"] = dict.fromkeys(COLUMNS, ())
    ones = np.ones(entities + n, dtype=np.float32)
    layers = rng.standard_normal((2, entities + n, DIM), dtype=np.float32)
    arrays = {"layers": layers, "others": ones, "interactions": ones}
    taken = rng.integers(0, n, USERS * 20)
    return Bundle(
        version="random",
        manifest={"item_columns": COLUMNS},
        user_ids=IdMap([f"u{number}" for number in range(USERS)]),
        item_ids=IdMap(ids),
        items=pl.DataFrame(items),
        user_vectors=vectors[:USERS].copy(),
        item_vectors=vectors,
        index=build_index(vectors),
        history=History(np.arange(USERS + 1) * 20, taken, np.sort(taken), np.ones(len(taken), dtype=np.float32)),
        features=tables,
        ranker=None,
        inductive=Inductive(arrays, info, [f"genre:{number}" for number in range(entities)], ids, None, None),
    )


def _rows(n: int, columns: int, each: int, rng: np.random.Generator) -> sparse.csr_matrix:
    indices = np.sort(rng.integers(0, columns, (n, each)).astype(np.int32), axis=1)
    parts = rng.random(n * each, dtype=np.float32), indices.ravel(), np.arange(n + 1) * each
    return sparse.csr_matrix(parts, shape=(n, columns))


def _embedded(n: int, rng: np.random.Generator) -> bytes:
    vector = rng.standard_normal(DIM).astype(np.float32)
    vector /= np.linalg.norm(vector)
    near, by = np.sort(rng.choice(n, NEAR, replace=False)), rng.random(NEAR, dtype=np.float32)
    one, zero, half = np.ones(1, dtype=np.float32), np.zeros(1, dtype=np.float32), vector.astype(np.float16)
    columns = np.zeros(len(ITEM_COLUMNS), dtype=np.float32)
    entities = np.array([1, 5]), np.ones(2, dtype=np.float32)
    item = NewItem(vector, np.stack([vector] * 2), one, zero, columns, zero, half, half, *entities, near, by, near, by)
    return item.to_bytes()


def measure_workers(n: int, rounds: int, seed: int) -> dict[str, float]:
    """Measures the cost for a worker."""
    rng = np.random.default_rng(seed)
    bundle = random_bundle(n, rng)
    overlay, number, figures = Overlay.of(bundle), 0, {}
    for count in (1, 50, 500):
        cpu = []
        for _ in range(rounds):
            number += 1
            changes = [CatalogChange(f"n{number}-{each}", "upsert", ITEM, number) for each in range(count)]
            made = [EmbeddedItem(change.item_id, number, _embedded(n, rng)) for change in changes]
            began = time.process_time()
            grown = overlay.apply(changes, made)
            cpu.append(1000 * (time.process_time() - began))
        figures[f"apply_{count}_cpu_ms"] = statistics.median(cpu)
        overlay = grown
    asked = {"grown": Recommender(overlay.served), "plain": Recommender(bundle)}
    calls = {name: lambda each=each: [each.recommend(f"u{user}") for user in range(20)] for name, each in asked.items()}
    times = interleaved(calls, rounds)
    return {**figures, "answer_ratio": 1 / speedup(times, "grown", "plain"), "added": len(overlay.served.item_ids) - n}


def measure_latency(folder: Path, encoder: Path | None, sent: int) -> dict[str, float]:
    """Measures the seconds from the reply until every server recommends the item, and the embedder's cost."""
    from serving.settings import ServerSettings, StoreSettings

    encoder = encoder or write_encoder(folder / "encoder")
    made = small_world.world(folder / "world", encoder=encoder, linear=True)
    bundle = replace(small_world.bundle(made), version="small")
    save_with_golden(bundle, folder / "bundle", extra_folders={"text_encoder": made.folder / "text_encoder"})
    store = StoreSettings(path=folder / "state.db", timeout_ms=10_000)
    settings = ServerSettings(bundle=folder / "bundle", port=0, store=store)
    command = [sys.executable, "-m", "serving.catalog.embedder"]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    first = {"settings": settings.model_dump(mode="json"), "bundle": str(folder / "bundle")}
    began = time.perf_counter()
    print(json.dumps(first), file=process.stdin, flush=True)
    process.stdout.readline()
    ready = time.perf_counter() - began
    try:
        seconds = _seconds_until_recommended(settings, sent + 1)[1:]
        memory = int(Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")[1].split()[0]) / 2**20
    finally:
        process.stdin.close()
        process.wait(20)
    figures = {"visible_s": statistics.median(seconds), "visible_worst_s": max(seconds)}
    return {**figures, "embedder_ready_s": ready, "embedder_gb": memory}


def _seconds_until_recommended(settings: Any, sent: int) -> list[float]:
    import grpc

    from reckg.bundle.read import load_bundle
    from reckg.v1 import catalog_pb2, catalog_pb2_grpc, item_pb2, recommender_pb2, recommender_pb2_grpc
    from serving.catalog.snapshot import ServingState
    from serving.store.sqlite import SqliteStore
    from serving.worker.server import start_server

    servers = []
    for _ in range(2):
        servers.append(start_server(settings, state=ServingState(SqliteStore(settings.store.path, settings.store))))
        servers[-1].ready(Recommender(load_bundle(settings.bundle, verify=False)))
    channels = [grpc.insecure_channel(server.address) for server in servers]
    stubs = [recommender_pb2_grpc.RecommenderServiceStub(channel) for channel in channels]
    request = recommender_pb2.RecommendRequest(user_id="u03", max_item_count=200, include_seen=True)
    seconds = []
    for number in range(sent):
        title = item_pb2.ItemAttribute(name="title", values=["dune the sea"])
        upsert = catalog_pb2.UpsertItemsRequest(items=[item_pb2.Item(item_id=f"n{number}", attributes=[title])])
        catalog_pb2_grpc.CatalogServiceStub(channels[0]).UpsertItems(upsert, timeout=20)
        began = time.perf_counter()
        for stub in stubs:
            while all(item.item_id != f"n{number}" for item in stub.Recommend(request, timeout=20).items):
                time.sleep(0.01)
        seconds.append(time.perf_counter() - began)
    for channel, server in zip(channels, servers, strict=True):
        channel.close()
        server.stop(0)
    return seconds


def main(arguments: list[str] | None = None) -> Result:
    command = parser(str(__doc__))
    command.add_argument("--items", type=int, default=100_000)
    command.add_argument("--items-sent", type=int, default=10)
    command.add_argument("--rounds", type=int, default=5)
    command.add_argument("--encoder", type=Path)
    given = command.parse_args(arguments)
    if given.beside:
        return beside("catalog_changes", given, arguments)
    items, rounds, sent = (2000, 2, 2) if given.small else (given.items, given.rounds, given.items_sent)
    figures = measure_workers(items, rounds, given.seed)
    with tempfile.TemporaryDirectory() as folder:
        figures |= measure_latency(Path(folder), given.encoder, sent)
    for name, value in figures.items():
        print(f"  {name:20} {value:10.4g}")
    settings = {"items": items, "dim": DIM, "rounds": rounds, "items_sent": sent, "small": given.small}
    packages = ["faiss-cpu", "grpcio", "numpy", "safetensors"]
    return finish("catalog_changes", figures, settings, packages=packages, seed=given.seed, out=given.out)


if __name__ == "__main__":
    main()
