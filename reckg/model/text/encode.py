"""Vectors of texts outside training, by an encoder that was saved after it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from reckg.model.text.encoder import load_pretrained, pool
from reckg.model.text.tokens import TextTokens

CPU = torch.device("cpu")


class Encoder:
    """A saved encoder on the CPU.

    Args:
        folder: written by TextEncoder.save.
        max_tokens: texts are cut to this length.
    """

    def __init__(self, folder: Path, max_tokens: int) -> None:
        self.tokenizer, model = load_pretrained(str(folder))
        self.model, self.max_tokens = model.eval(), max_tokens

    @torch.no_grad()
    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Encodes n texts.

        Args:
            texts: any length, cut to max_tokens.
        Returns:
            (n, dim) float32 unit vectors; zeros for an empty text.
        """
        tokens = TextTokens(self.tokenizer, texts, self.max_tokens)
        out = np.zeros((len(texts), self.model.config.hidden_size), dtype=np.float32)
        for rows in tokens.by_length(range(len(tokens))):
            mask = tokens.mask(rows, CPU)
            states = self.model(input_ids=tokens.ids(rows, CPU), attention_mask=mask.long())
            out[rows] = pool(states.last_hidden_state, mask).numpy()
        return out
