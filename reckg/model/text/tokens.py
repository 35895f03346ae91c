"""Texts as token ids: cut to a length, counted, and put together in batches of similar lengths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from reckg.errors import ArtifactError

TOKENS_AT_ONCE = 8192  # padded tokens that go through an encoder together


class TextTokens:
    """Token ids of n texts. A text of white space or control characters has none.

    White space counts as one blank.

    Args:
        tokenizer: of transformers.
        texts: n texts.
        max_tokens: longer texts are cut.
    Attributes:
        n_cut: number of cut texts.
        n_empty: number of texts without tokens.
    """

    def __init__(self, tokenizer: Any, texts: Sequence[str], max_tokens: int) -> None:
        self.rows, self.n_cut = _tokenize(tokenizer, texts, max_tokens)
        self.pad: int = tokenizer.pad_token_id or 0
        self.lengths = np.array([len(row) for row in self.rows], dtype=np.int64)
        self.start = np.concatenate([[0], np.cumsum(self.lengths)])  # (n + 1,) of each text among all tokens
        self.n_empty = int((self.lengths == 0).sum())

    def __len__(self) -> int:
        return len(self.rows)

    def by_length(self, rows: Iterable[int], tokens_at_once: int = TOKENS_AT_ONCE) -> list[list[int]]:
        """Puts the rows that have tokens in batches of similar lengths.

        In a batch, the longest is at most half as long again as the shortest, plus 3.

        Args:
            rows: places of texts.
            tokens_at_once: most padded tokens of a batch.
        """
        batches: list[list[int]] = []
        for row in sorted((row for row in rows if self.lengths[row]), key=self.lengths.__getitem__):
            length = self.lengths[row]
            full = not batches or (len(batches[-1]) + 1) * length > tokens_at_once
            if full or length > 1.5 * self.lengths[batches[-1][0]] + 3:
                batches.append([])
            batches[-1].append(row)
        return batches

    def ids(self, rows: Sequence[int], device: torch.device) -> torch.Tensor:
        """Collects the rows' token ids, padded: (b, t)."""
        width = int(self.lengths[rows].max())
        return torch.tensor([self.rows[r] + [self.pad] * (width - len(self.rows[r])) for r in rows], device=device)

    def mask(self, rows: Sequence[int], device: torch.device) -> torch.Tensor:
        """Marks tokens, as opposed to padding: (b, t) bool."""
        lengths = torch.from_numpy(self.lengths[rows]).to(device)
        return torch.arange(int(lengths.max()), device=device)[None, :] < lengths[:, None]

    def places(self, rows: Sequence[int]) -> np.ndarray:
        """Finds the places of the rows' tokens among all tokens, row after row."""
        return np.concatenate([np.arange(self.start[row], self.start[row + 1]) for row in rows])


def _tokenize(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> tuple[list[list[int]], int]:
    """Makes token ids of each text. A very long text is cut before, too.

    Returns:
        The ids, and the number of cut texts.
    """
    longest = max_tokens * 40
    special = tokenizer.num_special_tokens_to_add()
    rows: list[list[int]] = []
    n_cut = 0
    for begin in range(0, len(texts), 1024):
        whole = [" ".join(text.split()) for text in texts[begin : begin + 1024]]
        encoded = tokenizer([text[:longest] for text in whole], truncation=True, max_length=max_tokens)
        ids = encoded["input_ids"]
        over = [len(row) >= max_tokens for row in ids]
        if encoded.encodings is not None:
            over = [bool(encoding.overflowing) for encoding in encoded.encodings]
        n_cut += sum(o or len(text) > longest for o, text in zip(over, whole, strict=True))
        rows.extend(row if len(row) > special else [] for row in ids)
    return rows, n_cut


def check_positions(name: str, model: nn.Module, tokens: TextTokens, max_tokens: int) -> None:
    """Checks that the encoder has a position for every token.

    Raises:
        ArtifactError: a text has more tokens than the encoder has positions.
    """
    longest = int(tokens.lengths.max(initial=0))
    for key, table in model.named_modules():
        if key.endswith("position_embeddings") and isinstance(table, nn.Embedding):
            limit = table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
            if longest > limit:
                raise ArtifactError(
                    f"text encoder {name!r} has positions for {limit} tokens, a text has {longest}: "
                    f"set text.max_tokens to {limit} or less (it is {max_tokens})."
                )
