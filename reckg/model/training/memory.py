"""Memory of training, estimated from counts before any is taken, and the plan that fits a budget.

The estimate adds up the arrays that are alive at the fullest moment, in the process or, on CUDA, on the device.
docs/measurements/large-graphs.md compares it with measured peaks.
"""

from __future__ import annotations

import ctypes
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

from reckg.errors import ConfigError

GB = 1 << 30
BATCH = 4096  # least interactions of a step, if the batch is derived
STEPS = 128  # steps of an epoch, about, if the batch is derived
ATTENTION = {"uniform": 0, "transr": 36, "relation": 100}  # bytes an edge
AGGREGATOR = {"sum": 0.0, "gcn": 3.5, "bi-interaction": 7.0}  # arrays of node vectors that a step keeps for each layer
SHARING = 1024  # as reckg.model.training.objective.SHARING
SCORES = 1 << 23  # as reckg.model.training.objective.SCORES_AT_ONCE
TRIM_THRESHOLD, MMAP_MAX = -1, -4  # of mallopt, in glibc's malloc.h
TAUGHT_BY = 4000  # as reckg.model.linear.content.TAUGHT_BY


@dataclass(frozen=True)
class Sizes:
    """Counts and settings that determine the memory.

    Args:
        edges: directed, inverses included.
        id_rows: rows of the ID table.
        batch: interactions of a step.
        history: interactions of a user that an example reads.
        candidates: items that an example is scored against.
        fanout: neighbours that a sampled node keeps of each kind.
        text_dim: dimensions of the text vectors, 0 without text.
        attention, aggregator: as configured.
        cuda: the device's memory is estimated in place of the process's.
    """

    users: int
    items: int
    entities: int
    edges: int
    interactions: int
    id_rows: int
    dim: int
    layers: int
    batch: int
    history: float
    candidates: int
    fanout: int
    text_dim: int = 0
    attention: str = "uniform"
    aggregator: str = "sum"
    cuda: bool = False

    @property
    def nodes(self) -> int:
        """Number of nodes of the graph."""
        return self.users + self.items + self.entities


@dataclass(frozen=True)
class Plan:
    """The way to train, with its memory.

    Args:
        propagation: ``full`` or ``sampled``.
        estimate, budget: bytes.
    """

    propagation: str
    batch_size: int
    estimate: int
    budget: int

    def __str__(self) -> str:
        name = {"full": "full graph", "sampled": "sampled neighbourhoods"}[self.propagation]
        return f"{name}, batches of {self.batch_size:,}, estimated {_gb(self.estimate)} of {_gb(self.budget)} GB"


def estimate(sizes: Sizes, propagation: str) -> int:
    """Estimates the memory of the train stage at its fullest moment.

    That moment is either training, whose memory the process keeps, or the linear part's regression after it.

    Args:
        sizes: counts and settings.
        propagation: ``full`` or ``sampled``.
    Returns:
        Bytes that the process grows by, from before the graph is read; on CUDA, bytes of the device.
    """
    training = _kept(sizes, propagation) + max(_step(sizes, propagation), _embedding(sizes))
    if sizes.cuda:
        return int(training)
    loading = 150 * sizes.edges
    return int(max(loading, training) + 3 * 8 * min(sizes.items, TAUGHT_BY) ** 2)


def _kept(sizes: Sizes, propagation: str) -> float:
    """Estimates the bytes held throughout: the graph, the histories, the parameters with AdamW's state and averages."""
    if sizes.cuda:  # DGL's copy of the graph stays with the process
        edge, interaction = 46.0, 56
    else:
        edge, interaction = 56.0 + (16 if propagation == "sampled" else 0), 90
    edge += ATTENTION[sizes.attention]
    parameters = 4 * 4 * sizes.id_rows * sizes.dim
    text = 4 * sizes.text_dim * sizes.items + (400e6 if sizes.text_dim else 0)
    return edge * sizes.edges + interaction * sizes.interactions + parameters + text + 80e6


def _step(sizes: Sizes, propagation: str) -> float:
    """Estimates the bytes that a step adds: node vectors of all layers with their gradients, histories, scores."""
    row, more = 4 * sizes.dim, AGGREGATOR[sizes.aggregator]
    batch = sizes.batch * (sizes.history * 120 + row * (6 * sizes.layers + 12))
    drawn = sizes.candidates < sizes.items  # a group of examples after the other
    scores = 4 * (3 if drawn and not sizes.cuda else 6) * min(SCORES, sizes.batch * sizes.candidates)
    if propagation == "full":
        arrays = (2 + 3 * sizes.layers if sizes.cuda else 5 + 2.5 * sizes.layers) + more * sizes.layers
        text = float(sizes.items * (8 * sizes.text_dim + 6 * row)) if sizes.text_dim else 0.0
        rows = 2 * row * _count_drawn(sizes) if drawn else 0
        return batch + scores + rows + arrays * row * sizes.nodes + 2 * row * sizes.id_rows + text
    hops = estimate_nodes(sizes)
    sampled_edges = sum(2 * sizes.fanout * n for n in hops[:-1])
    text = min(hops[-1], sizes.items) * (4 * 4 * sizes.text_dim + 6 * row) if sizes.text_dim else 0
    return batch + scores + 6 * row * hops[-1] + (3.5 + more) * row * sum(hops[:-1]) + 60 * sampled_edges + text


def estimate_nodes(sizes: Sizes) -> list[float]:
    """Estimates the nodes of a step's neighbourhood, hop by hop from the seeds on.

    It is an upper bound, because popular nodes are met more than once.

    Returns:
        layers + 1 expected numbers of nodes.
    """
    users = float(min(sizes.users, sizes.batch))
    entities = 0.0
    items = _distinct(sizes.batch * (1 + sizes.history) + _count_drawn(sizes), sizes.items)
    found = [users + items]
    per_item = min(sizes.fanout, sizes.interactions / max(sizes.items, 1))
    for _ in range(sizes.layers):
        users, items, entities = (
            max(users, _distinct(per_item * items + users, sizes.users)),
            max(
                items,
                _distinct(min(sizes.fanout, sizes.history) * users + sizes.fanout * entities + items, sizes.items),
            ),
            max(entities, _distinct(sizes.fanout * (items + users) + entities, sizes.entities)),
        )
        found.append(users + items + entities)
    return found


def _count_drawn(sizes: Sizes) -> int:
    """Counts the items that a step's examples are scored against, anew for each group that shares its items."""
    return sizes.candidates * math.ceil(sizes.batch / SHARING)


def _distinct(draws: float, n: int) -> float:
    """Expects the number of distinct values of ``draws`` draws from ``n``."""
    return n * -math.expm1(-draws / n) if n else 0.0


def _embedding(sizes: Sizes) -> float:
    """Estimates the bytes that validation adds: three arrays of node vectors at a time and a block of scores.

    The scores are the process's. On CUDA the product holds two more arrays of node vectors.
    """
    row = 4 * sizes.dim
    return 5.2 * row * sizes.nodes if sizes.cuda else 3.3 * row * sizes.nodes + 300e6


def choose_batch(interactions: int) -> int:
    """Derives the batch size: at least BATCH, about STEPS steps an epoch, a multiple of 1,024."""
    return max(BATCH, math.ceil(interactions / STEPS / 1024) * 1024)


def choose_plan(sizes: Sizes, *, propagation: str, held: int, budget: int, softmax: bool) -> Plan:
    """Chooses the first way to train that fits the budget: the whole graph, else sampled neighbourhoods.

    Args:
        sizes: batch 0 stands for a derived one, which is halved down to BATCH where it does not fit.
        propagation: auto, full or sampled.
        held: bytes that the process has taken already.
        budget: bytes that it may take in all.
        softmax: the loss scores every item, which sampled neighbourhoods cannot.
    Raises:
        ConfigError: no allowed way fits, or sampled neighbourhoods are configured with a setting that needs the whole
            graph (softmax, or learned relation weights).
    """
    if propagation == "sampled" and softmax:
        raise ConfigError(
            "train.loss 'softmax' scores every item: set it to 'sampled-softmax' or 'bpr', or "
            "train.propagation to 'full'."
        )
    learned = sizes.attention == "relation"
    if propagation == "sampled" and learned:
        raise ConfigError(
            "model.attention 'relation' trains on the whole graph alone: set it to 'uniform' or 'transr', or "
            "train.propagation to 'full'."
        )
    whole = softmax or learned
    ways = ["full", "sampled"] if propagation == "auto" and not whole else [propagation.replace("auto", "full")]
    tried = []
    for way in ways:
        for batch in [sizes.batch] if sizes.batch else _batches(sizes.interactions, way):
            plan = Plan(way, batch, held + estimate(replace(sizes, batch=batch), way), budget)
            if plan.estimate <= budget:
                return plan
            tried.append(plan)
    smallest = min(tried, key=lambda plan: plan.estimate)
    raise ConfigError(
        f"training does not fit the memory: at least {_gb(smallest.estimate)} GB ({smallest.propagation}, batches of "
        f"{smallest.batch_size:,}) are needed, {_gb(budget)} GB may be taken. {_ways_out(sizes, smallest, softmax)}"
    )


def _batches(interactions: int, way: str) -> list[int]:
    found = [choose_batch(interactions) if way == "full" else BATCH]
    while found[-1] > BATCH:
        found.append(max(BATCH, found[-1] // 2))
    return found


def _ways_out(sizes: Sizes, smallest: Plan, softmax: bool) -> str:
    """Names the changes that would help, with their memory: smaller vectors, sampling if ruled out, more memory."""
    held = smallest.estimate - estimate(replace(sizes, batch=smallest.batch_size), smallest.propagation)
    ways = []
    halved = replace(sizes, batch=smallest.batch_size, dim=sizes.dim // 2)
    ways.append(f"model.embedding_dim {halved.dim} takes {_gb(held + estimate(halved, smallest.propagation))} GB")
    if smallest.propagation == "full":
        attention = sizes.attention.replace("relation", "uniform")
        other = held + estimate(replace(sizes, batch=BATCH, attention=attention), "sampled")
        needed = " and train.loss 'sampled-softmax'" if softmax else ""
        needed += " and model.attention 'uniform'" if sizes.attention == "relation" else ""
        ways.append(f"train.propagation 'sampled'{needed} takes {_gb(other)} GB")
    return "Possible: " + "; ".join(ways) + "; more memory, and train.memory_gb raised to it."


def keep_freed_memory() -> None:
    """Has glibc keep freed memory for the next arrays. Given back, each would fault in anew, page by page.

    It holds for the rest of the process, whose memory does not shrink then. With another C library nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, -1)


def held_memory() -> int:
    """Reads the bytes of resident memory of this process."""
    pages = Path("/proc/self/statm")
    return int(pages.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if pages.is_file() else 0


def available_memory(proc: Path = Path("/proc"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Finds the bytes that can be taken without swapping: the lesser of the machine's and the control group's.

    Args:
        proc, cgroup: the folders of the kernel's files.
    """
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    meminfo = proc / "meminfo"
    if meminfo.is_file():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        found = [int(fields["MemAvailable"].split()[0]) * 1024]
    own = proc / "self" / "cgroup"
    groups = [line.split(":", 2)[2].strip("/") for line in own.read_text().splitlines()] if own.is_file() else []
    for root, limit, used in (
        (cgroup, "memory.max", "memory.current"),  # version 2
        (cgroup / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),  # version 1
    ):
        for group in sorted({"", *groups}):
            most, now = root / group / limit, root / group / used
            if most.is_file() and now.is_file() and most.read_text().strip() != "max":
                found.append(max(0, int(most.read_text()) - int(now.read_text()) + _file_cache(root / group)))
    return min(found)


def _file_cache(group: Path) -> int:
    """Reads the bytes of a control group's usage that the kernel gives back on demand."""
    stat = group / "memory.stat"
    rows = dict(line.split() for line in stat.read_text().splitlines()) if stat.is_file() else {}
    return int(rows.get("inactive_file", 0))


def _gb(n: float) -> str:
    return f"{n / GB:.1f}"
