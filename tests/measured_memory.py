"""Trains for three steps on a random graph in this process, and prints the estimate of the growth, and the growth.

python -m tests.measured_memory USERS full|sampled ATTENTION AGGREGATOR [cuda]. On the CPU the growth is the process's,
linear part included; on CUDA it is the most that torch had of the device.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from reckg.graph.knowledge_graph import build_knowledge_graph
from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.joint.histories import Histories
from reckg.model.joint.joint_model import JointModel, ModelSettings
from reckg.model.joint.neighbourhood import NeighbourSampler
from reckg.model.linear.spectral import choose_shares, fit_spectral
from reckg.model.training import train as module
from reckg.model.training.batches import SeenItems
from reckg.model.training.memory import Sizes, estimate, held_memory, keep_freed_memory
from reckg.model.training.objective import Objective
from tests.small_model import schedule

ROOT = Path(__file__).resolve().parents[1]
DIM, LAYERS, BATCH, NEGATIVES, FANOUT = 64, 2, 4096, 1024, 5


def sizes(users: int, attention: str = "uniform", aggregator: str = "sum", cuda: bool = False) -> Sizes:
    """A fifth as many items and a tenth as many entities as users; 10 interactions a user, 5 triples an item."""
    items, entities = users // 5, users // 10
    return Sizes(
        users=users,
        items=items,
        entities=entities,
        edges=2 * (10 * users + 5 * items),
        interactions=10 * users,
        id_rows=items + entities,
        dim=DIM,
        layers=LAYERS,
        batch=BATCH,
        history=4.5,
        candidates=NEGATIVES,
        fanout=FANOUT,
        attention=attention,
        aggregator=aggregator,
        cuda=cuda,
    )


def train(counts: Sizes, propagation: str, device: torch.device) -> None:
    rng = np.random.default_rng(0)
    n, items = counts.interactions, counts.items
    user, item = np.repeat(np.arange(counts.users), 10), rng.integers(0, items, n)
    graph = build_knowledge_graph(
        n_users=counts.users,
        n_items=items,
        n_entities=counts.entities,
        relations=("a",),
        triples=(
            counts.users + np.repeat(np.arange(items), 5),
            np.zeros(5 * items, dtype=np.int64),
            counts.users + items + rng.integers(0, counts.entities, 5 * items),
        ),
        user_idx=user,
        item_idx=item,
        recency=np.ones(n),
        interaction_share=0.8,
    )
    settings = ModelSettings(
        embedding_dim=DIM,
        relation_dim=8,
        layers=LAYERS,
        aggregator=counts.aggregator,
        combine="mean",
        attention=counts.attention,
        dropout=0.1,
        id_dropout=0.1,
        user_ids=False,
    )
    model = JointModel(graph, None, settings).to(device)
    tensors, generator = GraphTensors(graph, device), torch.Generator().manual_seed(0)
    known = Histories(np.arange(0, n + 1, 10), item, tensors, ordered=True, half_life=3.0, interaction_share=0.8)
    made = Objective(
        loss="sampled-softmax",
        temperature=0.2,
        negatives=NEGATIVES,
        popularity_correction=True,
        kg_loss="none",
        kg_weight=0.0,
        text_weight=0.0,
        l2_weight=0.0,
        text_batch_tokens=1,
        generator=generator,
        histories=known,
        seen=SeenItems(known.user.cpu(), known.item.cpu(), counts.users, items),
        popularity=torch.full((items,), 1 / items),
        sampler=NeighbourSampler(tensors, FANOUT, generator) if propagation == "sampled" else None,
    )
    whole = module.batches
    module.batches = lambda *words: itertools.islice(whole(*words), 3)  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as folder:
        plan = schedule(epochs=1, batch_size=BATCH, average_decay=0.9)
        module.train(model, tensors, made, plan, folder=Path(folder), validate=lambda found: 0.0, key="k")
    choose_shares(fit_spectral(graph, 63), model.embeddings(tensors), graph, lambda found: np.zeros(1))


def main(users: int, propagation: str, attention: str, aggregator: str, device: str = "cpu") -> None:
    keep_freed_memory()
    torch.set_num_threads(1)
    counts, held = sizes(users, attention, aggregator, device == "cuda"), held_memory()
    train(counts, propagation, torch.device(device))
    if device == "cuda":
        grown = torch.cuda.max_memory_allocated()
    else:  # ru_maxrss would start from the size of the process that forked this
        grown = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024 - held
    print(estimate(counts, propagation), grown)


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
