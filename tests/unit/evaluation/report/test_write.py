from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from reckg.config.run_config import Config, EvaluateConfig
from reckg.errors import ArtifactError, ConfigError
from reckg.evaluation.comparison import SYSTEMS, judgement, primary_metric, systems_and_comparisons
from reckg.evaluation.report.html import SECTIONS, render_html
from reckg.evaluation.report.svg import Line, Mark, bar_chart, beeswarm, dot_plot, line_chart, nice_ticks
from reckg.evaluation.report.words import metric_label
from reckg.evaluation.report.write import mood, verdict, write_report
from reckg.pipeline.stages.evaluate import evaluate
from reckg.recommend.golden import save_with_golden
from tests.small_bundle import small_bundle
from tests.small_report import LEVEL, N, diversity, read_page, result_of, sample_report, small_run


def test_all_files_are_written_and_agree(tmp_path: Path) -> None:
    written = write_report(sample_report(diversity=diversity()), tmp_path / "report")
    files = ["report.html", "report.json", "report.md"]
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == files
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert report == json.loads(json.dumps(written))
    for name in LEVEL:
        assert SYSTEMS[name][0] == report["systems"][name]["label"]
        for metric in ("recall@10", "ndcg@10", "recall@20", "ndcg@20", "mrr@10", "hit@20", "map@10", "coverage@10"):
            values = report["systems"][name]["test"][metric]
            assert sorted(values) == ["high", "low", "mean"]
            assert 0 <= values["low"] <= values["mean"] <= values["high"] <= 1
    page = read_page((tmp_path / "report" / "report.html").read_text(encoding="utf-8"))
    text = " ".join(page.text)
    markdown = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert markdown.startswith(report["verdict"])
    for shown in (text, markdown):
        assert f"{report['systems']['ease']['test']['ndcg@10']['mean']:.4f}" in shown
        assert "as ranked" in shown and "and 3 more" in shown and "Moonrise" in shown and "12 settings" in shown
        for heading in [title for title, _ in SECTIONS if title not in ("New items", "Index", "Training")]:
            assert heading in shown
    assert "Index" in text and "Training" in text and "## Index: hnsw" in markdown
    assert "item popularity" in text
    assert page.tags.count("svg") >= 22


def test_the_page_needs_no_network_and_escapes_what_it_shows() -> None:
    report = sample_report(diversity=diversity()) | {"verdict": "said", "best_baseline": "ease", "mood": 0}
    html = render_html(report)
    assert not re.search(r"https?:|src=|@import|url\(|<link|<script", html)
    assert "toy &lt;books&gt;" in html
    assert "toy <books>" not in html and "Rome <x>" not in html
    assert "@media print" in html
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
    html = render_html(sample_report() | {"verdict": better, "best_baseline": "ease", "mood": 1})
    page = html[html.index("<main>") :]
    assert page.startswith(f'<main><p class="verdict good">{better}')


def test_what_chance_may_do_among_so_many_is_not_called_better() -> None:
    report = sample_report()
    assert mood(report) == 1
    report["comparisons"]["ease"]["ndcg@10"] |= {"corrected_low": -0.01, "corrected_high": 0.09}
    said = verdict(report)
    assert said.startswith("No clear difference") and mood(report) == 0
    assert "95% interval -0.0100 to +0.0900, corrected for the number of systems" in said, "words and interval agree"


def test_the_verdict_warns_of_few_users() -> None:
    report = sample_report()
    assert "so few users" not in verdict(report)
    report["protocol"]["test"]["users"] = 29
    assert verdict(report).endswith("Of so few users (29) the figures say little.")


def test_comparisons_are_corrected_for_their_number() -> None:
    results = {name: result_of(level, seed) for seed, (name, level) in enumerate(LEVEL.items())}
    results["model"].per_user["ndcg@10"] = results["reckg"].per_user["ndcg@10"] + np.random.default_rng(5).normal(
        0, 1, N
    )
    settings = {name: {} for name in results}
    _, found = systems_and_comparisons(results, settings, "ndcg@10", 200, 0)
    assert found["model"]["ndcg@10"]["p_holm"] > 0.05 > found["ease"]["ndcg@10"]["p_holm"]
    assert "p_holm" not in found["ease"]["recall@10"]
    for name in found:  # the interval and the p-value say the same
        one = found[name]["ndcg@10"]
        outside = not one["corrected_low"] <= 0 <= one["corrected_high"]
        assert outside == (one["p_holm"] < 0.05) == (judgement(one) != 0)
    alone = systems_and_comparisons({n: results[n] for n in ("reckg", "model")}, settings, "ndcg@10", 200, 0)[1]
    assert alone["model"]["ndcg@10"]["p_holm"] == found["model"]["ndcg@10"]["p_holm"]  # the largest p is not multiplied
    assert alone["model"]["ndcg@10"]["low"] == found["model"]["ndcg@10"]["low"]


def test_a_failed_check_is_said_before_anything_else() -> None:
    leak = [{"name": "nothing known", "passed": False, "detail": "7 of 60"}]
    report = sample_report(leakage_checks=leak)
    said = verdict(report)
    assert said.startswith("Do not trust these figures: 1 leakage check(s) failed (nothing known). reckg beats")
    html = render_html(report | {"verdict": said, "best_baseline": "ease", "mood": mood(report)})
    assert 'class="verdict bad"' in html
    assert "failed</span>" in html


def test_sections_that_are_not_known_are_left_out(tmp_path: Path) -> None:
    report = sample_report()
    must = ("systems", "comparisons", "protocol")
    for name in [name for name in report if name not in must]:
        del report[name]
    for system in report["systems"].values():
        del system["beyond"]
    write_report(report, tmp_path)
    text = " ".join(read_page((tmp_path / "report.html").read_text(encoding="utf-8")).text)
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    for shown in (text, markdown):
        assert [title for title, _ in SECTIONS if title in shown] == [
            "Accuracy",
            "Paired differences",
            "Protocol",
            "Settings of the systems",
        ]


def test_numbers_that_are_none_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_report(sample_report(data={"share": float("nan")}), tmp_path)
    assert not list(tmp_path.iterdir())


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


def test_what_lies_on_each_other_is_shifted_apart() -> None:
    svg = beeswarm("t", [("a", [(0.1, 0.0), (0.1, 1.0), (0.1, None)]), ("b", [(-0.4, 0.5)])])
    dots = re.findall(r'class="bee (\w+)" cx="([\d.]+)" cy="([\d.]+)"', svg)
    assert [kind for kind, _, _ in dots] == ["v0", "v4", "none", "v2"]
    assert len({x for _, x, _ in dots[:3]}) == 1 and len({y for _, _, y in dots[:3]}) == 3
    assert float(dots[3][1]) < float(dots[0][1])
    assert beeswarm("t", []) == ""


def test_long_labels_are_cut_and_told_in_full() -> None:
    svg = dot_plot("t", [("a publisher of a very long name", [Mark(0.1, 0.05, 0.2)])], say="{:.0%}".format)
    assert "a publisher of a very…" not in svg and "…<title>a publisher of a very long name</title>" in svg
    assert ">10%</text>" in svg and "10% (5% to 20%)" in svg


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


def test_the_stage_reports_on_a_run(tmp_path: Path) -> None:
    small_run(tmp_path)
    config = Config(evaluate=EvaluateConfig(k=(5, 10), bootstrap_samples=100, block_users=7))
    counts = evaluate(config, tmp_path / "not read", tmp_path)
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    baselines = ["popularity", "popularity_recent", "item_knn", "ease", "als"]
    assert list(report["systems"]) == ["reckg", "model", "retrieval", *baselines] and "cold_items" not in report
    assert report["protocol"]["tuning_settings"] == 10
    assert all(len(report["systems"][name]["settings"]["tried"]) == 10 for name in baselines[1:])
    assert report["protocol"]["history"] == "train+valid"
    assert report["protocol"]["test"]["users"] == counts["users"] == 39  # the last user has no interaction
    assert report["protocol"]["candidates"] == 60
    assert [check["passed"] for check in report["leakage_checks"]] == [True] * 6
    # A flat index and no ranker: the three own systems are the same lists, and pairing sees no difference.
    nothing = dict.fromkeys(("mean", "low", "high", "corrected_low", "corrected_high"), 0.0)
    same = nothing | {"p": 1.0, "p_holm": 1.0}
    for name in ("model", "retrieval"):
        assert report["systems"][name]["test"] == report["systems"]["reckg"]["test"]
        assert report["comparisons"][name]["ndcg@10"] == same
    assert report["systems"]["reckg"]["settings"]["ranker"] == {"served": False}
    assert report["ranker"]["why"] == "too few labels"
    assert report["training"][0]["epoch"] == 1
    assert report["timing"]["train"] == {"seconds": 3.5, "peak_memory_mb": 200.0}
    assert report["timing"]["evaluate"]["seconds"] > 0 and report["timing"]["evaluate"]["peak_memory_mb"] > 0
    assert report["beyond"] == {
        "k": 10,
        "likeness": "the cosine of their attributes in the knowledge graph",
        "column": None,
    }
    assert report["systems"]["reckg"]["beyond"]["coverage"] == report["systems"]["reckg"]["test"]["coverage@10"]
    assert [user["name"] for user in report["samples"]] == ["user A", "user B", "user C", "user D"]
    assert list(report["samples"][0]["lists"]) == ["reckg", report["best_baseline"]]
    assert [len(shown) for shown in report["samples"][0]["lists"].values()] == [10, 10]
    assert "last_event" in report["slices"] and report["data"]["data_hash"] == "0" * 64
    assert report["configuration"]["evaluate"]["k"] == [5, 10]
    assert [point["recall"] for point in report["index"]["points"]] == [1.0]
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    ids = [raw for raw in (f"u{user:03d}" for user in range(40)) if raw in page]
    assert ids == [] and "Title of i0" in page and (tmp_path / "report" / "report.md").is_file()


def test_user_ids_are_shown_where_they_are_asked_for(tmp_path: Path) -> None:
    small_run(tmp_path)
    settings = EvaluateConfig(k=(10,), bootstrap_samples=100, sample_users=2, show_user_ids=True, tuning_settings=1)
    evaluate(Config(evaluate=settings), tmp_path, tmp_path)
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert len(report["samples"]) == 2 and all(re.fullmatch(r"u\d{3}", user["name"]) for user in report["samples"])
    assert len(report["systems"]["als"]["settings"]["tried"]) == 1


def test_columns_that_do_not_exist_or_fit_are_refused(tmp_path: Path) -> None:
    small_run(tmp_path)
    for setting in ("provider_column", "calibration_column"):
        config = Config(evaluate=EvaluateConfig(bootstrap_samples=100, tuning_settings=1, **{setting: "brand"}))
        with pytest.raises(ConfigError, match=f"evaluate.{setting}: the catalog has no column 'brand'; it has title"):
            evaluate(config, tmp_path, tmp_path)


def test_the_stage_refuses_a_bundle_of_another_run(tmp_path: Path) -> None:
    small_run(tmp_path)
    save_with_golden(small_bundle(40, 59, ranked=False), tmp_path / "bundle", overwrite=True)
    with pytest.raises(ArtifactError, match="40 users and 59 items, prepared/ 40 and 60"):
        evaluate(Config(), tmp_path, tmp_path)
