"""The table of model variants: what is skipped and why, and a small one from the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from reckg.config.run_config import Config, with_settings
from reckg.data.bookshop.write import write_bookshop
from reckg.errors import ConfigError
from tests.benchmarks.model_variants import CHANGES, _file_name, main, skip_reason


def test_a_variant_that_the_configuration_has_already_is_the_default() -> None:
    layers = Config().model.layers
    assert skip_reason(Config(), "x", {"model.layers": layers}, 100) == "the default"
    assert skip_reason(Config(), "x", {"model.layers": layers + 1}, 100) is None
    assert skip_reason(Config(), "x", {"train.loss": "softmax"}, 100) == "the default"  # what auto means
    assert skip_reason(Config(), "x", {"train.loss": "softmax"}, 1_000_000) is None
    assert skip_reason(Config(), "x", {"train.loss": "sampled-softmax"}, 1_000_000) == "the default"
    bpr = with_settings(Config(), {"train.loss": "bpr"}, "test")
    assert skip_reason(bpr, "x", {"train.loss": "softmax"}, 100) is None


def test_a_variant_that_the_configuration_refuses_says_why() -> None:
    found = skip_reason(Config(), "new", {"model.attention": "guess | work"}, 100)
    assert found is not None and found.startswith("skipped: 1 problem in new: model.attention: ")
    assert "|" not in found  # it stands in a table


def test_every_variant_has_a_folder_of_its_own() -> None:
    assert len({_file_name(name) for name, _ in CHANGES}) == len(CHANGES)


def test_a_small_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bookshop(tmp_path / "dataset", users=60, items=80, seed=3)
    settings = '[run]\nthreads = 1\n[text]\nencoder = "none"\n[model]\nlayers = 1\n[train]\nepochs = 9\n'
    (tmp_path / "small.toml").write_text(settings)
    arguments = ["--on", str(tmp_path / "small.toml"), str(tmp_path / "dataset"), "--out", str(tmp_path / "out")]
    for _ in range(2):
        main([*arguments, "--seeds", "0,1", "--epochs", "1", "--only", "1 layer;2 layers"])
        table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
        head, _, default, one, two = ([cell.strip() for cell in line.strip("|").split("|")] for line in table)
        assert head[2:5] == ["NDCG@10", "less the default's", "by seed"]
        assert default[0] == "default" and default[3:5] == ["", ""]
        folders = [tmp_path / f"out/small/variants/default/seed-{seed}/model" for seed in (0, 1)]
        told = [json.loads((folder / "train.json").read_text())["valid_ndcg@10"] for folder in folders]
        assert float(default[2].split()[0]) == pytest.approx(sum(told) / 2, abs=1e-4)
        assert one[:3] == ["1 layer", "`model.layers = 1`", "the default"]
        assert two[:2] == ["2 layers", "`model.layers = 2`"]
        assert (
            two[3].count("[") == 1
            and re.fullmatch(r"[+-]0\.\d{4} to [+-]0\.\d{4}, [012] of 2", two[4])
            and two[5] == "1"
        )
    with pytest.raises(ConfigError, match=r"train\.epochs"):  # what is finished was trained with others
        main([*arguments, "--epochs", "2"])
    with pytest.raises(SystemExit):
        main([*arguments, "--only", "5 layers"])
    assert "no such variant: 5 layers; known: " in capsys.readouterr().err
