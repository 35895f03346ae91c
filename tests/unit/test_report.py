from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from jobs.evaluate import evaluate
from reckg.bundle import save_bundle
from reckg.config import Config, EvaluateConfig
from reckg.errors import ArtifactError
from reckg.evaluation.protocol import HeldOut, ItemGroups, SystemResult
from reckg.evaluation.report import (
    SYSTEMS,
    comparison_section,
    history_slices,
    popularity_groups,
    popularity_slices,
    primary_metric,
    protocol_section,
    system_section,
    verdict,
    write_report,
)
from reckg.evaluation.report_html import metric_label, render_html
from reckg.evaluation.report_svg import Line, Mark, bar_chart, dot_plot, line_chart, nice_ticks
from tests.small_bundle import small_bundle

KS = (10, 20)
N = 60
LEVEL = {"reckg": 0.5, "model": 0.45, "retrieval": 0.45, "popularity": 0.1, "item_knn": 0.3, "ease": 0.4}


def result_of(level: float, seed: int) -> SystemResult:
    rng = np.random.default_rng(0)  # the same users for every system
    base = rng.random(N) * 0.2
    own = np.random.default_rng(seed).normal(0, 0.01, N)
    names = [f"{name}@{k}" for k in KS for name in ("recall", "ndcg", "mrr", "hit")]
    per_user = {name: base + level + own for name in names}
    cold = np.where(np.arange(N) < 5, 0.0, np.nan)
    per_group = {
        "head": {"recall@10": base + level, "ndcg@10": base + level},
        "cold": {"recall@10": cold, "ndcg@10": cold},
    }
    coverage = {f"coverage@{k}": {"mean": 0.3, "low": 0.28, "high": 0.32} for k in KS}
    return SystemResult(per_user, coverage, 0.5, per_group)


def sample_report(level: dict[str, float] | None = None, **more: Any) -> dict[str, Any]:
    results = {name: result_of(value, seed) for seed, (name, value) in enumerate((level or LEVEL).items())}
    rows = (np.arange(N + 1), np.zeros(N, dtype=np.int64))
    counts = {
        "interactions": 64,
        "repeated": 1,
        "already_seen": 2,
        "targets": N,
        "users": N,
        "users_without_target": 1,
    }
    held = HeldOut(np.arange(N), rows, rows, counts)
    groups = ItemGroups(("head", "middle", "tail", "cold"), np.array([0, 0, 1, 2, 3]))
    return {
        "name": "toy <books>",
        "systems": {name: system_section(name, result, {"a setting": 3}, 100, 0) for name, result in results.items()},
        "comparisons": comparison_section(results, 100, 0),
        "slices": {
            "history_length": history_slices(results, np.arange(N) % 12, ("ndcg@10", "recall@10"), 100, 0),
            "item_popularity": popularity_slices(results, groups, 100, 0),
        },
        "protocol": protocol_section(held, ("train", "valid"), "leave-last-out", 5, KS, 100, 0),
        "leakage_checks": [{"name": "nothing known", "passed": True, "detail": "0 of 60"}],
        "training": [
            {"epoch": 1, "loss": {"total": 3.0, "l2": 0.0}, "valid_ndcg@10": 0.1, "train_seconds": 1.0},
            {"epoch": 2, "loss": {"total": 2.0, "l2": 0.0}, "valid_ndcg@10": 0.3, "train_seconds": 1.0},
            {"epoch": 3, "loss": {"total": 1.5, "l2": 0.0}, "train_seconds": 1.0},
        ],
        "ranker": {"served": True, "gain": {"retrieval_score": 8.0, "item_popularity": 2.0}},
        "timing": {"train": {"seconds": 12.5, "peak_memory_mb": 400.0}, "evaluate": {"seconds": 1.25}},
        "data": {"users": N, "counts": {"dropped": 3}},
        **more,
    }


class Page(HTMLParser):
    """Collects the text and checks that every element is closed in order."""

    VOID = ("meta", "br", "hr")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read_page(html: str) -> Page:
    page = Page()
    page.feed(html)
    assert not page.open
    return page


def test_both_files_are_written_and_agree(tmp_path: Path) -> None:
    written = write_report(sample_report(), tmp_path / "report")
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["report.html", "report.json"]
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert report == json.loads(json.dumps(written))
    for name in LEVEL:
        assert SYSTEMS[name][0] == report["systems"][name]["label"]
        for metric in ("recall@10", "ndcg@10", "recall@20", "ndcg@20", "mrr@10", "hit@20", "coverage@10"):
            values = report["systems"][name]["test"][metric]
            assert sorted(values) == ["high", "low", "mean"]
            assert 0 <= values["low"] <= values["mean"] <= values["high"] <= 1
    page = read_page((tmp_path / "report" / "report.html").read_text(encoding="utf-8"))
    text = " ".join(page.text)
    assert f"{report['systems']['ease']['test']['ndcg@10']['mean']:.4f}" in text
    for heading in ("Paired differences", "Training", "Ranker", "Leakage checks", "Protocol", "Time and memory"):
        assert heading in text
    assert "item_popularity" in text
    assert page.tags.count("svg") >= 12


def test_the_page_needs_no_network_and_escapes_what_it_shows() -> None:
    report = sample_report() | {"verdict": "said", "best_baseline": "ease"}
    html = render_html(report)
    assert not re.search(r"https?:|src=|@import|url\(|<link|<script", html)
    assert "toy &lt;books&gt;" in html
    assert "toy <books>" not in html
    assert "prefers-color-scheme:dark" in html
    assert 'name="viewport"' in html


def test_the_verdict_comes_first_and_tells_the_three_cases_apart() -> None:
    better = verdict(sample_report())
    assert better.startswith("reckg beats the best baseline, EASE: NDCG@10 0.")
    assert "paired over 60 users" in better
    assert verdict(sample_report(LEVEL | {"reckg": 0.3})).startswith("reckg is worse than the best baseline, EASE")
    same = verdict(sample_report(LEVEL | {"reckg": 0.4005}))
    assert same.startswith("No clear difference between reckg and the best baseline, EASE")
    assert verdict(sample_report(LEVEL | {"popularity": 0.45})).startswith("reckg beats the best baseline, popularity")
    html = render_html(sample_report() | {"verdict": better, "best_baseline": "ease"})
    page = html[html.index("<main>") :]
    assert page.startswith(f'<main><p class="verdict good">{better}')


def test_a_failed_check_is_said_before_anything_else() -> None:
    leak = [{"name": "nothing known", "passed": False, "detail": "7 of 60"}]
    report = sample_report(leakage_checks=leak)
    said = verdict(report)
    assert said.startswith("Do not trust these figures: 1 leakage check(s) failed (nothing known). reckg beats")
    html = render_html(report | {"verdict": said, "best_baseline": "ease"})
    assert 'class="verdict bad"' in html
    assert "failed</span>" in html


def test_sections_that_are_not_known_are_left_out(tmp_path: Path) -> None:
    report = sample_report()
    for name in ("slices", "training", "ranker", "timing", "data", "leakage_checks", "name"):
        del report[name]
    write_report(report, tmp_path)
    text = " ".join(read_page((tmp_path / "report.html").read_text(encoding="utf-8")).text)
    assert "Paired differences" in text
    for heading in ("Training", "Ranker", "Leakage checks", "Time and memory"):
        assert heading not in text


def test_numbers_that_are_none_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_report(sample_report(data={"share": float("nan")}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_slices_hold_the_users_they_name() -> None:
    report = sample_report()
    rows = report["slices"]["history_length"]["rows"]
    assert [(row["name"], row["users"]) for row in rows] == [("0", 5), ("1 to 4", 20), ("5 to 9", 25), ("10 to 19", 10)]
    rows = report["slices"]["item_popularity"]["rows"]
    assert [(row["name"], row["users"]) for row in rows] == [("head (2 items)", N), ("cold (1 items)", 5)]
    assert rows[1]["systems"]["ease"]["ndcg@10"] == {"mean": 0.0, "low": 0.0, "high": 0.0}


def test_popularity_groups_cut_the_interactions_not_the_items() -> None:
    groups = popularity_groups(np.array([0.0, 10.0, 50.0, 30.0, 5.0, 5.0]))
    # By popularity: 50 | 30 | 10, 5, 5 | none: shares before them 0, .5, .8, .9, .95.
    assert [groups.names[place] for place in groups.group] == ["cold", "tail", "head", "middle", "tail", "tail"]


def test_the_primary_metric_is_at_ten_where_that_is_a_cutoff() -> None:
    assert primary_metric((5, 10, 20)) == "ndcg@10"
    assert primary_metric((20, 5)) == "ndcg@5"
    assert metric_label("ndcg@5") == "NDCG@5"
    assert metric_label("recall@20") == "Recall@20"


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-0.003, 0.0121), (0.2, 0.2), (0.0, 0.0), (3.0, 4100.0)])
def test_ticks_are_few_and_enclose_the_values(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low + 1e-12
    assert ticks[-1] >= high - 1e-12
    assert 2 <= len(ticks) <= 8


def test_marks_lie_inside_the_plot_in_the_order_of_their_values() -> None:
    svg = dot_plot("t", [("a", [Mark(0.1, 0.05, 0.2)]), ("b", [Mark(0.4, 0.3, 0.5)])])
    x = [float(value) for value in re.findall(r'<circle [^>]*cx="([\d.]+)"', svg)]
    assert 100 <= x[0] < x[1] <= 322
    low, high = (float(v) for v in re.findall(r'class="span base" x1="([\d.]+)" x2="([\d.]+)"', svg)[0])
    assert low < x[0] < high


def test_bars_have_lengths_in_proportion_and_refuse_negative_values() -> None:
    svg = bar_chart("t", [("a", 4.0), ("b", 1.0)], str)
    wide, narrow = (float(value) for value in re.findall(r'width="([\d.]+)" height="14"', svg))
    assert wide == pytest.approx(4 * narrow, rel=0.01)
    with pytest.raises(ValueError, match=">= 0"):
        bar_chart("t", [("a", -1.0)], str)


def test_the_marked_epoch_carries_its_value() -> None:
    svg = line_chart("t", [Line([1, 2, 3], [0.1, 0.3, 0.2], best=1)], "epoch")
    assert "0.3 at 2" in svg
    assert line_chart("t", [], "epoch") == ""
    assert "<polyline" in line_chart("one point", [Line([1], [0.5])], "epoch")


def small_run(run: Path, n_users: int = 40, n_items: int = 60) -> None:
    """What the earlier stages leave in a run's folder: the last two interactions of each user are held out."""
    bundle = small_bundle(n_users, n_items, ranked=False)
    history = bundle.history
    user = np.repeat(np.arange(n_users), np.diff(history.indptr))
    age = history.indptr[user + 1] - 1 - np.arange(len(user))  # 0 is a user's latest
    frame = pl.DataFrame(
        {
            "user_idx": user,
            "item_idx": history.item_idx,
            "timestamp": history.timestamp,
            "weight": history.weight,
            "split": np.array(["test", "valid", "train"])[np.minimum(age, 2)],
        }
    )
    info = {
        "name": "small",
        "time": "utc",
        "item_columns": {"text": ["title"], "categorical": [], "number": [], "list": []},
        "split": {"kind": "leave-last-out", "valid_before_test": True},
        "checks": {"partition": {"passed": True, "bad": 0, "of": len(user), "says": "rows lost"}},
    }
    for folder in ("prepared", "graph", "embeddings", "model", "ranker"):
        (run / folder).mkdir(parents=True)
    frame.write_parquet(run / "prepared" / "interactions.parquet")
    pl.DataFrame({"user_id": bundle.user_ids.ids}).write_parquet(run / "prepared" / "users.parquet")
    bundle.items.write_parquet(run / "prepared" / "items.parquet")
    (run / "prepared" / "prepared.json").write_text(json.dumps(info), encoding="utf-8")
    node = n_users + np.arange(n_items)
    triples = {"head": node, "relation": np.zeros(n_items, dtype=np.int64), "tail": n_users + n_items + node % 5}
    pl.DataFrame(triples).write_parquet(run / "graph" / "triples.parquet")
    vectors = {"users": bundle.user_vectors, "items": bundle.item_vectors}
    save_file(vectors, run / "embeddings" / "test.safetensors")
    (run / "model" / "log.jsonl").write_text(json.dumps({"epoch": 1, "loss": {"total": 2.0}, "valid_ndcg@10": 0.1}))
    (run / "ranker" / "ranker.json").write_text(json.dumps({"info": {"served": False, "why": "too few labels"}}))
    (run / "state.json").write_text(json.dumps({"stages": {"train": {"seconds": 3.5, "peak_memory_mb": 200.0}}}))
    save_bundle(bundle, run / "bundle")


def test_the_stage_reports_on_a_run(tmp_path: Path) -> None:
    small_run(tmp_path)
    config = Config(evaluate=EvaluateConfig(k=(5, 10), bootstrap_samples=100, block_users=7))
    counts = evaluate(config, tmp_path / "not read", tmp_path)
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert list(report["systems"]) == list(LEVEL) and "cold_items" not in report
    assert report["protocol"]["history"] == "train+valid"
    assert report["protocol"]["test"]["users"] == counts["users"] == 39  # the last user has no interaction
    assert report["protocol"]["candidates"] == 60
    assert [check["passed"] for check in report["leakage_checks"]] == [True] * 6
    # A flat index and no ranker: the three own systems are the same lists, and pairing sees no difference.
    for name in ("model", "retrieval"):
        assert report["systems"][name]["test"] == report["systems"]["reckg"]["test"]
        assert report["comparisons"][name]["ndcg@10"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    assert report["systems"]["reckg"]["settings"]["ranker"] == {"served": False}
    assert report["ranker"]["why"] == "too few labels"
    assert report["training"][0]["epoch"] == 1
    assert report["timing"]["train"] == {"seconds": 3.5, "peak_memory_mb": 200.0}
    assert report["timing"]["evaluate"]["seconds"] > 0
    assert (tmp_path / "report" / "report.html").is_file()


def test_the_stage_refuses_a_bundle_of_another_run(tmp_path: Path) -> None:
    small_run(tmp_path)
    save_bundle(small_bundle(40, 59, ranked=False), tmp_path / "bundle", overwrite=True)
    with pytest.raises(ArtifactError, match="40 users and 59 items, prepared/ 40 and 60"):
        evaluate(Config(), tmp_path, tmp_path)
