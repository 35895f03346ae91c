"""Sections of a run's configuration on its data: cleaning, the question, event types, and the split."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from reckg.config.toml_settings import Section


class DataConfig(Section):
    """Cleaning: min_weight before the split, the rest of each part."""

    min_weight: float | None = Field(None, description="Drop interactions whose weight (rating) is below this.")
    duplicates: Literal["auto", "keep", "first", "last", "sum"] = Field(
        "auto",
        description="Of a user's repeated (item, event) in one part: keep all, the first, the last, or sum the "
        "weights; auto: last with the target new, else keep.",
    )
    weights: Literal["log", "linear", "ignore"] = Field(
        "log",
        description="What a weight (rating, play count, price) counts: log: log(1 + weight / the training part's 5th "
        "percentile); linear: as it is; ignore: every interaction alike. Their mean over training is made 1.",
    )
    k_core: int = Field(0, ge=0, description="Drop users and items with fewer interactions than this, repeatedly.")
    k_core_of: Literal["train", "all"] = Field(
        "train",
        description="Interactions that k_core counts: those of training, or all, as published protocols do. With all, "
        "later interactions decide on the training part; the report says so.",
    )
    catalogue: Literal["all", "interacted"] = Field(
        "all", description="Candidates: all items, or only those that occur in the cleaned interactions."
    )


class TaskConfig(Section):
    """The question that the run answers."""

    target: Literal["auto", "new", "any", "repeat"] = Field(
        "auto",
        description="new: items that the user never had; any: those that come again too (groceries, music); repeat: "
        "those alone. auto: any where a tenth of what users take by the end of validation is a repeat, else new; "
        "data without an order in time has new.",
    )


class EventConfig(Section):
    """One event type, as in `[events.purchase]` or `[events]` `purchase = {target = true}`."""

    target: bool = Field(
        False, description="Interactions of this type are predicted. Where no type is, the data chooses."
    )
    weight: float | None = Field(
        None, gt=0, description="What an interaction of this type counts. Not set: derived from the training part."
    )
    negative: bool = Field(False, description="The user does not want the item: it is kept out of the user's lists.")

    @model_validator(mode="after")
    def _one_meaning(self) -> EventConfig:
        if self.negative and (self.target or self.weight is not None):
            raise ValueError("a negative event is no target and has no weight")
        return self


class SplitConfig(Section):
    """The split of interactions into train, valid and test."""

    kind: Literal["auto", "given", "global-time", "leave-last-out", "per-user-ratio", "cold-items"] = Field(
        "auto",
        description="auto: given where the data has a split column, else global-time for UTC times, "
        "leave-last-out for ordered sequences, else per-user-ratio. cold-items: some items leave training whole, "
        "to measure what is done with new ones.",
    )
    valid: float = Field(
        0.1,
        gt=0,
        lt=0.5,
        description="Share of the interactions for validation; leave-last-out and cold-items have none.",
    )
    test: float = Field(
        0.1, gt=0, lt=0.5, description="Share of the interactions for test; leave-last-out and cold-items have none."
    )
    cold_share: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="cold-items: share of the items with interactions that leave training whole, drawn by run.seed; "
        "half of them are for validation, half for test.",
    )
