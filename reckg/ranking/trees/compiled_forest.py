"""The ranker's trees as bit vectors that a few lines of machine code walk over, eight rows at a time.

QuickScorer (Lucchese et al. 2015, doi:10.1145/2766462.2767733): every node that a row leaves to the right clears the
leaves on its left from the row's bits. The first remaining bit is the row's leaf. The code is the same for all trees
and is made by LLVM in memory, in a few hundredths of a second. The sums are LightGBM's to the last bit: the same
leaves, added in the same order.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

Predict = Callable[[np.ndarray], np.ndarray]

LANES = 8  # rows at a time
BLOCK = 256  # rows whose bits stay in the first cache
MOST_LEAVES = 64  # most leaves of a tree: bits of a word
ZERO = np.float32(1e-35)  # LightGBM reads values up to this distance from 0 as 0
CHECKED_ROWS = 512  # random rows on which the compiled trees must equal LightGBM's
MISSING = 0.1  # share of their values that are NaN
WITHOUT = "the ranker's trees are evaluated by LightGBM, not compiled: %s"

# nodes, leaves: where each tree's begin, and the end. x: a row of values per feature. bits: of the rows.
CODE = """
declare {word} @llvm.cttz.{word}({word}, i1)

define void @add_trees(i64 %trees, i64 %vectors, ptr noalias %nodes, ptr noalias %leaves, ptr noalias %feature,
                       ptr noalias %threshold, ptr noalias %kept, ptr noalias %value, ptr noalias %x,
                       ptr noalias %bits, ptr noalias %out) {{
entry:
  %rows = mul i64 %vectors, {lanes}
  br label %tree
tree:
  %t = phi i64 [0, %entry], [%t.next, %tree.end]
  %t.next = add i64 %t, 1
  %nodes.at = getelementptr i64, ptr %nodes, i64 %t
  %first = load i64, ptr %nodes.at
  %nodes.to = getelementptr i64, ptr %nodes, i64 %t.next
  %end = load i64, ptr %nodes.to
  %leaves.at = getelementptr i64, ptr %leaves, i64 %t
  %leaf = load i64, ptr %leaves.at
  %values = getelementptr double, ptr %value, i64 %leaf
  br label %clear
clear:
  %c = phi i64 [0, %tree], [%c.next, %clear]
  %c.at = getelementptr <{lanes} x {word}>, ptr %bits, i64 %c
  store <{lanes} x {word}> splat ({word} -1), ptr %c.at, align 8
  %c.next = add i64 %c, 1
  %cleared = icmp eq i64 %c.next, %vectors
  br i1 %cleared, label %node.or.none, label %clear
node.or.none:
  %none = icmp eq i64 %first, %end
  br i1 %none, label %row, label %node
node:
  %n = phi i64 [%first, %node.or.none], [%n.next, %node.end]
  %f.at = getelementptr i64, ptr %feature, i64 %n
  %f = load i64, ptr %f.at
  %x.from = mul i64 %f, %rows
  %x.row = getelementptr float, ptr %x, i64 %x.from
  %h.at = getelementptr float, ptr %threshold, i64 %n
  %h = load float, ptr %h.at
  %h.one = insertelement <{lanes} x float> poison, float %h, i64 0
  %h.all = shufflevector <{lanes} x float> %h.one, <{lanes} x float> poison, <{lanes} x i32> zeroinitializer
  %k.at = getelementptr {word}, ptr %kept, i64 %n
  %k = load {word}, ptr %k.at
  %k.one = insertelement <{lanes} x {word}> poison, {word} %k, i64 0
  %k.all = shufflevector <{lanes} x {word}> %k.one, <{lanes} x {word}> poison, <{lanes} x i32> zeroinitializer
  br label %vector
vector:
  %v = phi i64 [0, %node], [%v.next, %vector]
  %x.at = getelementptr <{lanes} x float>, ptr %x.row, i64 %v
  %x.all = load <{lanes} x float>, ptr %x.at, align 4
  %right = fcmp ogt <{lanes} x float> %x.all, %h.all
  %left.over = select <{lanes} x i1> %right, <{lanes} x {word}> %k.all, <{lanes} x {word}> splat ({word} -1)
  %b.at = getelementptr <{lanes} x {word}>, ptr %bits, i64 %v
  %b = load <{lanes} x {word}>, ptr %b.at, align 8
  %b.new = and <{lanes} x {word}> %b, %left.over
  store <{lanes} x {word}> %b.new, ptr %b.at, align 8
  %v.next = add i64 %v, 1
  %node.done = icmp eq i64 %v.next, %vectors
  br i1 %node.done, label %node.end, label %vector
node.end:
  %n.next = add i64 %n, 1
  %nodes.done = icmp eq i64 %n.next, %end
  br i1 %nodes.done, label %row, label %node
row:
  %r = phi i64 [0, %node.or.none], [0, %node.end], [%r.next, %row]
  %w.at = getelementptr {word}, ptr %bits, i64 %r
  %w = load {word}, ptr %w.at
  %place = call {word} @llvm.cttz.{word}({word} %w, i1 true)
  %value.at = getelementptr double, ptr %values, {word} %place
  %added = load double, ptr %value.at
  %out.at = getelementptr double, ptr %out, i64 %r
  %before = load double, ptr %out.at
  %after = fadd double %before, %added
  store double %after, ptr %out.at
  %r.next = add i64 %r, 1
  %rows.done = icmp eq i64 %r.next, %rows
  br i1 %rows.done, label %tree.end, label %row
tree.end:
  %trees.done = icmp eq i64 %t.next, %trees
  br i1 %trees.done, label %exit, label %tree
exit:
  ret void
}}
"""

logger = logging.getLogger(__name__)


class UnsupportedTreesError(Exception):
    """Trees of a kind that is left to LightGBM."""


@dataclass(frozen=True)
class Forest:
    """The trees as arrays over all nodes, and over the leaves from left to right.

    Args:
        nodes, leaves: where each tree's begin.
        feature: the row of the values, F further down if a missing value goes right.
        kept: the leaves that remain if a row goes right.
    """

    n_features: int
    nodes: np.ndarray
    leaves: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    kept: np.ndarray
    value: np.ndarray


class CompiledForest:
    """Trees as a function, safe to call from several threads."""

    def __init__(self, forest: Forest) -> None:
        self._forest = forest
        self._add_trees = _machine_code(8 * forest.kept.itemsize)

    def sums(self, features: np.ndarray, threads: int = 1) -> np.ndarray:
        """Sums the trees' values.

        Args:
            features: (r, F) float32, finite or NaN.
        Returns:
            (r,) float64.
        """
        sums = np.zeros(len(features))
        starts = range(0, len(features), BLOCK)
        if threads == 1 or len(starts) < 2:
            for start in starts:
                self._add(features[start : start + BLOCK], sums[start : start + BLOCK])
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(lambda at: self._add(features[at : at + BLOCK], sums[at : at + BLOCK]), starts))
        return sums

    def _add(self, features: np.ndarray, sums: np.ndarray) -> None:
        """Writes the sums of some rows."""
        forest, n = self._forest, len(features)
        vectors = -(-n // LANES)
        x = np.zeros((2, forest.n_features, vectors * LANES), dtype=np.float32)
        x[:, :, :n] = features.T
        missing = np.isnan(x[0])
        x[0][missing], x[1][missing] = -np.inf, np.inf
        bits = np.empty(vectors * LANES, dtype=forest.kept.dtype)
        out = np.zeros(vectors * LANES)
        arrays = (forest.nodes, forest.leaves, forest.feature, forest.threshold, forest.kept, forest.value)
        self._add_trees(len(forest.nodes) - 1, vectors, *(each.ctypes.data for each in (*arrays, x, bits, out)))
        sums[:] = out[:n]


def compile_forest(text: str, reference: Predict) -> CompiledForest | None:
    """Compiles the trees of a LightGBM text model.

    Args:
        text: LightGBM's text model, from a file whose hash was checked.
        reference: LightGBM's own sums for (r, F) float32 features.
    Returns:
        None, with a line in the log that gives the reason: the extra 'compiled' is not installed, the trees are of
            another
        kind, or the compilation failed.
    """
    began = time.perf_counter()
    try:
        forest = read_forest(text)
        compiled = CompiledForest(forest)
        _check(compiled, reference, forest.n_features)
    except ImportError as error:
        logger.info(WITHOUT, f"{error}; pip install 'reckg[compiled]' makes them several times faster")
        return None
    except Exception as error:  # LightGBM answers in any case
        logger.warning(WITHOUT, f"{type(error).__name__}: {error}")
        return None
    seconds = time.perf_counter() - began
    logger.info("the ranker's %d trees were compiled in %.2f s", len(forest.nodes) - 1, seconds)
    return compiled


def read_forest(text: str) -> Forest:
    """Reads the trees of a LightGBM text model.

    Raises:
        UnsupportedTreesError: trees with categories, zeros that mean missing, linear leaves, more than MOST_LEAVES
            leaves, or with averaged output.
    """
    head, *blocks = text.partition("\nend of trees")[0].split("\nTree=")
    header = _fields(head)
    if "average_output" in head.splitlines():
        raise UnsupportedTreesError("the answer is the mean of the trees")
    n_features = int(header["max_feature_idx"]) + 1
    trees = [_tree(_fields(block), n_features) for block in blocks]
    if not trees:
        raise UnsupportedTreesError("there is no tree")
    feature, threshold, kept, value = ([tree[part] for tree in trees] for part in range(4))
    word = np.uint32 if max(map(len, value)) <= 32 else np.uint64
    return Forest(
        n_features,
        np.cumsum([0, *map(len, feature)], dtype=np.int64),
        np.cumsum([0, *map(len, value)], dtype=np.int64),
        np.concatenate(feature).astype(np.int64),
        _round_down(np.concatenate(threshold)),
        np.concatenate(kept).astype(word),
        np.concatenate(value).astype(np.float64),
    )


def _fields(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _tree(fields: dict[str, str], n_features: int) -> tuple[np.ndarray, ...]:
    """Reads features, thresholds and kept leaves of a tree's nodes, and its leaves' values from left to right."""
    n_leaves = int(fields["num_leaves"])
    if n_leaves > MOST_LEAVES or fields["num_cat"] != "0" or fields.get("is_linear", "0") != "0":
        raise UnsupportedTreesError(f"a tree has categories, linear leaves or {n_leaves} > {MOST_LEAVES} leaves")
    values = _numbers(fields["leaf_value"])
    if n_leaves == 1:
        return np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.uint64), values
    feature, threshold, kinds = (_numbers(fields[name]) for name in ("split_feature", "threshold", "decision_type"))
    missing_is, default_left = kinds.astype(int) >> 2 & 3, kinds.astype(int) & 2 > 0
    if (missing_is == 1).any():
        raise UnsupportedTreesError("zeros mean missing values")
    missing_left = np.where(missing_is == 2, default_left, threshold >= 0)  # if training had no NaN, NaN counts as 0
    order, left_leaves = _leaf_order(_numbers(fields["left_child"]), _numbers(fields["right_child"]))
    return feature + n_features * ~missing_left, threshold, ~left_leaves, values[order]


def _leaf_order(left: np.ndarray, right: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Orders the leaves from left to right, and marks each node's left side in bits."""
    order: list[int] = []
    bits = np.zeros(len(left), dtype=np.uint64)

    def walk(child: int) -> None:
        if child < 0:
            order.append(~child)
            return
        first = len(order)
        walk(int(left[child]))
        bits[child] = (1 << len(order)) - (1 << first)
        walk(int(right[child]))

    walk(0)
    return order, bits


def _numbers(text: str) -> np.ndarray:
    return np.array(text.split(), dtype=np.float64)


def _round_down(threshold: np.ndarray) -> np.ndarray:
    """Rounds thresholds to the largest float32 values that keep every finite comparison, as LightGBM reads them."""
    below = np.nextafter(-ZERO, np.float32(-np.inf))
    threshold = np.where(np.abs(threshold) <= ZERO, np.where(threshold < 0, below, ZERO), threshold)
    with np.errstate(over="ignore"):
        rounded = threshold.astype(np.float32)
    rounded = np.where(rounded > threshold, np.nextafter(rounded, np.float32(-np.inf)), rounded)
    return np.minimum(rounded, np.finfo(np.float32).max)  # finite: a missing value may go right of infinity


@functools.cache
def _machine_code(bits: int) -> Callable[..., None]:
    """Compiles CODE for words of a number of bits, for this machine's processor."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(CODE.format(word=f"i{bits}", lanes=LANES)), target)
    engine.finalize_object()
    numbers, pointers = [ctypes.c_int64] * 2, [ctypes.c_void_p] * 9
    function: Any = ctypes.CFUNCTYPE(None, *numbers, *pointers)(engine.get_function_address("add_trees"))
    function.engine = engine  # the engine owns the code's memory
    add_trees: Callable[..., None] = function
    return add_trees


def _check(forest: CompiledForest, reference: Predict, n_features: int) -> None:
    """Raises ArithmeticError if the sums differ from LightGBM's for random rows, some of their values missing."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((CHECKED_ROWS, n_features), dtype=np.float32) * rng.choice([0.1, 1, 10], n_features)
    rows = np.where(rng.random(rows.shape) < MISSING, np.nan, rows).astype(np.float32)
    found, expected = forest.sums(rows), reference(rows)
    if not np.array_equal(found, expected):
        raise ArithmeticError(f"the compiled sums differ from LightGBM's, by up to {np.abs(found - expected).max()}")
