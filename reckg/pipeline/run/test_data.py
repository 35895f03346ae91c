"""A run's data as of test time, for the evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reckg.config.run_config import Config
from reckg.data.history import History
from reckg.evaluation.protocol import HeldOut
from reckg.pipeline.run.folder import Prepared, read_prepared
from reckg.pipeline.run.held_out import held_out_part, new_items


@dataclass(frozen=True)
class RunData:
    """A run's data as of test time: known and held-out interactions."""

    prepared: Prepared
    parts: tuple[str, ...]  # split parts in a user's history at test time
    train: History
    history: History
    held: HeldOut
    new_items: np.ndarray | None  # (c,) item_idx of the test part's items, where the items are split

    @property
    def n_users(self) -> int:
        return len(self.prepared.users)

    @property
    def n_items(self) -> int:
        return len(self.prepared.items)


def read_run(config: Config, run: Path) -> RunData:
    """Reads prepared/ as of test time.

    Args:
        run: run folder.
    Raises:
        ArtifactError: prepared/ cannot be read.
        DataError: the test part is empty.
    """
    prepared = read_prepared(run)
    return RunData(
        prepared=prepared,
        parts=prepared.parts("test", config),
        train=prepared.history("train", config),
        history=prepared.history("test", config),
        held=held_out_part(prepared, "test"),
        new_items=new_items(prepared, "test") if prepared.cold_items else None,
    )
