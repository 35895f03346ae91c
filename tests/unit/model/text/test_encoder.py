"""Texts to vectors: the same as transformers gives, whole or from the cache, for every policy and any text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from reckg.model.text import encoder as module
from reckg.model.text.encoder import TextEncoder
from tests.small_model import TEXTS, plain_vectors, text_encoder, write_encoder

ROUNDED = {"rtol": 0.0, "atol": 2e-3}  # the cache holds float16
POLICIES = ("frozen", "top-k", "lora", "full")
TRAINED = ("top-k", "lora", "full")


pytestmark = pytest.mark.usefixtures("no_network")


# ---------------------------------------------------------------------------------------------------------------------
# Vectors.
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_starts_from_plain_mean_pooling(encoder: Path, tmp_path: Path, policy: str) -> None:
    made = text_encoder(encoder, tmp_path, policy)
    torch.testing.assert_close(made.vectors, plain_vectors(encoder, TEXTS), **ROUNDED)
    assert not made.vectors[3].any() and made.tokens.n_empty == 1
    torch.testing.assert_close(made.vectors[[0, 1, 2, 4]].norm(dim=1), torch.ones(4), rtol=0, atol=1e-3)
    spread = made.vectors[[0, 1, 2]] @ made.vectors[4]
    assert spread.max() < 0.99  # different texts are different vectors, far beyond the rounding


@pytest.mark.parametrize("layers", [1, 2, 3, 9])
def test_the_cached_path_equals_the_full_forward_pass_also_after_training(
    encoder: Path, tmp_path: Path, layers: int
) -> None:
    made = text_encoder(encoder, tmp_path, "top-k", trainable_layers=layers)
    with torch.no_grad():
        for parameter in made.list_trained_parameters().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    rows = torch.tensor([2, 3, 0, 4])
    assert made._hidden is not None
    cached = made.encode(rows)
    made._hidden = None  # from here on, all layers are computed
    whole = made.encode(rows)
    torch.testing.assert_close(cached, whole, **ROUNDED)
    assert not torch.allclose(whole[0], plain_vectors(encoder, TEXTS)[2], atol=0.02)


def test_encode_gives_the_rows_asked_for_in_their_order(encoder: Path, tmp_path: Path) -> None:
    made = text_encoder(encoder, tmp_path, "full")
    torch.testing.assert_close(made.encode(torch.tensor([4, 3, 0])), made.vectors[[4, 3, 0]], rtol=1e-4, atol=1e-5)
    assert not made.encode(torch.tensor([3])).any()


def test_refresh_computes_the_vectors_of_the_current_weights(encoder: Path, tmp_path: Path) -> None:
    made = text_encoder(encoder, tmp_path, "top-k")
    before = made.vectors.clone()
    with torch.no_grad():
        for parameter in made.list_trained_parameters().values():
            parameter.mul_(1.3)
    assert torch.equal(made.vectors, before)
    made.refresh()
    assert not torch.allclose(made.vectors[0], before[0], atol=0.01) and not made.vectors[3].any()
    torch.testing.assert_close(made.vectors[[0, 4]], made.encode(torch.tensor([0, 4])).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("policy", ["top-k", "full"])
def test_there_is_no_dropout_in_a_vector_while_the_model_trains(encoder: Path, tmp_path: Path, policy: str) -> None:
    made = text_encoder(encoder, tmp_path, policy)
    made.refresh()
    before = made.vectors.clone()
    made.train()
    torch.testing.assert_close(made.encode(torch.tensor([2, 0])), before[[2, 0]], rtol=1e-4, atol=1e-5)
    made.refresh()
    torch.testing.assert_close(made.vectors, before, rtol=1e-4, atol=1e-5)


def test_what_is_encoded_in_a_step_is_kept_and_nothing_else_changes(encoder: Path, tmp_path: Path) -> None:
    made = text_encoder(encoder, tmp_path, "top-k")
    before = made.vectors.clone()
    with torch.no_grad():
        for parameter in made.list_trained_parameters().values():
            parameter.mul_(1.3)
    found = made.encode(torch.tensor([4, 1]))
    assert torch.equal(made.vectors[[4, 1]], found) and not torch.allclose(found[0], before[4], atol=0.01)
    assert torch.equal(made.vectors[[0, 2, 3]], before[[0, 2, 3]]) and not made.vectors.requires_grad


def test_batching_by_length_does_not_change_a_vector(encoder: Path, tmp_path: Path) -> None:
    texts = [("sea " * n + "novel town ")[: 7 * n] for n in range(1, 40)]
    together = text_encoder(encoder, tmp_path, texts=texts).vectors
    for row in (0, 7, 38):
        alone = text_encoder(encoder, tmp_path, texts=[texts[row]]).vectors[0]
        torch.testing.assert_close(together[row], alone, **ROUNDED)


# ---------------------------------------------------------------------------------------------------------------------
# What trains.
# ---------------------------------------------------------------------------------------------------------------------


def gradients(made: TextEncoder) -> set[str]:
    made.encode(torch.tensor([0, 2, 4])).square().mul(torch.arange(made.dim)).sum().backward()
    return {name for name, p in made.model.named_parameters() if p.grad is not None and p.grad.any()}


def test_top_k_gives_gradients_to_the_last_layers_only(encoder: Path, tmp_path: Path) -> None:
    made = text_encoder(encoder, tmp_path, "top-k", trainable_layers=2)
    found = gradients(made)
    assert found and all("layer.1." in name or "layer.2." in name for name in found)
    assert {name.split(".")[2] for name in found} == {"1", "2"}
    # A key's bias adds the same to all scores of a softmax: its gradient is zero but for rounding.
    assert {name for name in made.list_trained_parameters() if "key.bias" not in name} <= found


def test_lora_gives_gradients_to_lora_parameters_of_the_last_layers_only(encoder: Path, tmp_path: Path) -> None:
    made = text_encoder(encoder, tmp_path, "lora", trainable_layers=2)
    assert made.list_trained_parameters() and all("lora_" in name for name in made.list_trained_parameters())
    found = gradients(made)
    assert found and all("lora_" in name and ("layer.1." in name or "layer.2." in name) for name in found)
    assert {name.split("layer.")[1][0] for name in found} == {"1", "2"}


def test_full_gives_gradients_to_everything(encoder: Path, tmp_path: Path) -> None:
    made = text_encoder(encoder, tmp_path, "full")
    found = gradients(made)
    assert {name for name in made.list_trained_parameters() if "key.bias" not in name} <= found
    assert any("word_embeddings" in name for name in found) and any("layer.0." in name for name in found)


def test_frozen_trains_nothing(encoder: Path, tmp_path: Path) -> None:
    made = text_encoder(encoder, tmp_path, "frozen")
    assert not made.trains and made.list_trained_parameters() == {}
    assert not any(parameter.requires_grad for parameter in made.parameters())
    assert not made.encode(torch.tensor([0])).requires_grad
    assert all(text_encoder(encoder, tmp_path, policy).trains for policy in ("top-k", "full"))


# ---------------------------------------------------------------------------------------------------------------------
# The cache.
# ---------------------------------------------------------------------------------------------------------------------


def caches_computed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A list that grows by one for every cache file that is computed."""
    computed: list[Path] = []
    create = module.np.lib.format.open_memmap

    def counting(path: Path, **arguments: Any) -> Any:
        if arguments.get("mode") == "w+":  # numpy reads a cache through the same function
            computed.append(path)
        return create(path, **arguments)

    monkeypatch.setattr(module.np.lib.format, "open_memmap", counting)
    return computed


@pytest.mark.parametrize("policy", ["frozen", "top-k"])
def test_the_cache_is_used_again_and_only_for_the_same_content(
    encoder: Path, tmp_path: Path, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed = caches_computed(monkeypatch)
    first = text_encoder(encoder, tmp_path / "cache", policy).vectors
    second = text_encoder(encoder, tmp_path / "cache", policy).vectors
    assert len(computed) == 1 and torch.equal(first, second)
    text_encoder(encoder, tmp_path / "cache", policy, texts=[*TEXTS[:4], "another text"])
    other = write_encoder(tmp_path / "other", seed=1)
    different = text_encoder(other, tmp_path / "cache", policy).vectors
    assert len(computed) == 3 and not torch.allclose(first, different, atol=0.1)
    if policy == "top-k":
        text_encoder(encoder, tmp_path / "cache", policy, trainable_layers=2)
        assert len(computed) == 4
    assert not list((tmp_path / "cache").glob(".*"))


def test_a_half_written_cache_is_not_used(encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "pool", killed)
        text_encoder(encoder, tmp_path)
    torch.testing.assert_close(text_encoder(encoder, tmp_path).vectors, plain_vectors(encoder, TEXTS), **ROUNDED)


# ---------------------------------------------------------------------------------------------------------------------
# Any text.
# ---------------------------------------------------------------------------------------------------------------------


def test_a_text_of_ten_thousand_words_other_scripts_and_emoji(encoder: Path, tmp_path: Path) -> None:
    texts = [
        "the sea " * 5000,
        "прощай 再见 وداعا",
        "\U0001f600\U0001f468‍\U0001f469‍\U0001f467",
        "the\x00sea‏\ud7ff",
        "ß" * 300,
    ]
    made = text_encoder(encoder, tmp_path, texts=texts)
    assert len(made.tokens.rows[0]) == 32 and made.tokens.n_cut >= 1 and made.tokens.n_empty == 0
    torch.testing.assert_close(made.vectors.norm(dim=1), torch.ones(5), rtol=0, atol=1e-3)
    cut = plain_vectors(encoder, ["the sea " * 15])
    torch.testing.assert_close(made.vectors[0], cut[0], **ROUNDED)


def test_white_space_around_and_within_a_text_does_not_count(encoder: Path, tmp_path: Path) -> None:
    made = text_encoder(encoder, tmp_path, texts=["the sea", "  the \n\t sea ", " \n ", ""])
    assert torch.equal(made.vectors[0], made.vectors[1])
    assert made.tokens.n_empty == 2 and not made.vectors[2:].any()


def test_white_space_before_a_text_does_not_push_it_out(encoder: Path, tmp_path: Path) -> None:
    made = text_encoder(encoder, tmp_path, texts=["the sea", " " * 5000 + "the sea"])
    assert made.tokens.n_empty == 0 and torch.equal(made.vectors[0], made.vectors[1])


@pytest.mark.parametrize(("text", "cut"), [("the sea " * 3, 0), ("the sea " * 4, 1)])
def test_a_text_is_counted_as_cut_when_something_of_it_is_lost(
    encoder: Path, tmp_path: Path, text: str, cut: int
) -> None:
    """Six words and the two tokens around them are the eight that fit."""
    made = text_encoder(encoder, tmp_path, texts=[text], max_tokens=8)
    assert (len(made.tokens.rows[0]), made.tokens.n_cut) == (8, cut)


def test_a_text_that_is_cut_before_it_is_tokenized_is_counted_as_cut(encoder: Path, tmp_path: Path) -> None:
    """A word of thousands of letters is one unknown token: what comes after it is lost, though few tokens are there."""
    made = text_encoder(encoder, tmp_path, texts=["x" * 3000 + " the sea"])
    assert made.tokens.n_cut == 1 or len(made.tokens.rows[0]) == 5


@pytest.mark.parametrize("policy", ["frozen", "top-k", "full"])
@pytest.mark.parametrize("texts", [[], ["", " "]])
def test_no_text_at_all(encoder: Path, tmp_path: Path, policy: str, texts: list[str]) -> None:
    made = text_encoder(encoder, tmp_path, policy, texts=texts)
    assert made.vectors.shape == (len(texts), 32) and not made.vectors.any()
    assert made.encode(torch.arange(len(texts))).shape == (len(texts), 32)


# ---------------------------------------------------------------------------------------------------------------------
# Saving.
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", TRAINED)
def test_the_saved_encoder_gives_the_same_vectors_with_lora_merged(encoder: Path, tmp_path: Path, policy: str) -> None:
    made = text_encoder(encoder, tmp_path / "cache", policy)
    with torch.no_grad():
        for parameter in made.list_trained_parameters().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    made.refresh()
    made.save(tmp_path / "saved")
    assert not torch.allclose(made.vectors, plain_vectors(encoder, TEXTS), atol=0.02)
    torch.testing.assert_close(plain_vectors(tmp_path / "saved", TEXTS), made.vectors, **ROUNDED)
    again = text_encoder(tmp_path / "saved", tmp_path / "cache")
    torch.testing.assert_close(again.vectors, made.vectors, **ROUNDED)
    assert not [name for name, _ in again.model.named_parameters() if "lora" in name]
    made.refresh()  # saving left the trained encoder as it was
    torch.testing.assert_close(again.vectors, made.vectors, **ROUNDED)
