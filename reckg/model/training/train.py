"""The training loop: epochs of steps, validation, early stopping, checkpoints and exact resume."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TextIO, TypedDict

import torch

from reckg.errors import ArtifactError
from reckg.files.atomic_folder import write_atomically
from reckg.model.embeddings import Embeddings
from reckg.model.joint.graph_tensors import GraphTensors
from reckg.model.joint.joint_model import JointModel
from reckg.model.joint.neighbourhood import NeighbourSampler
from reckg.model.training import checkpoint
from reckg.model.training.batches import TrainBatch, batches
from reckg.model.training.objective import Objective
from reckg.model.training.row_adamw import RowAdamW

EpochRow = TypedDict(
    "EpochRow",
    {
        "epoch": int,
        "loss": dict[str, float],  # mean of each part
        "train_seconds": float,
        "examples_per_second": float,
        "valid_ndcg@10": NotRequired[float],
    },
)


@dataclass(frozen=True)
class Schedule:
    """Length and speed of training. Names and meanings are those of the configuration."""

    batch_size: int
    learning_rate: float
    text_learning_rate: float
    weight_decay: float
    warmup_steps: int
    clip_norm: float
    epochs: int
    patience: int
    validate_every: int
    checkpoint_every: int
    attention_every: int
    refresh_every: int
    average_decay: float = 0.0
    targets: int = 1


@dataclass
class Progress:
    """The state of training at the end of an epoch.

    Args:
        epoch, step: finished ones.
        since_best: validations since the best score.
        seconds: spent on epochs.
    """

    epoch: int = 0
    step: int = 0
    best_score: float = -1.0
    best_epoch: int = 0
    since_best: int = 0
    seconds: float = 0.0


def make_optimizer(model: JointModel, schedule: Schedule, sampler: NeighbourSampler | None = None) -> torch.optim.AdamW:
    """Makes AdamW over every trained parameter. The text encoder's parameters have their own learning rate.

    Args:
        sampler: given, only the rows of the ID table that a step has read are updated.
    """
    text = list(model.text.list_trained_parameters().values()) if model.text is not None else []
    in_text = {id(parameter) for parameter in text}
    graph = [p for p in model.parameters() if p.requires_grad and id(p) not in in_text]
    groups = [{"params": graph, "peak": schedule.learning_rate}, {"params": text, "peak": schedule.text_learning_rate}]
    groups = [g for g in groups if g["params"]]
    if sampler is not None:
        return RowAdamW(groups, model.embedding, sampler, lr=0.0, weight_decay=schedule.weight_decay)
    return torch.optim.AdamW(groups, lr=0.0, weight_decay=schedule.weight_decay, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, step: int, warmup_steps: int) -> None:
    """Sets the learning rate: a linear warm-up to each group's peak, then constant.

    Args:
        step: counts from 0.
        warmup_steps: length of the warm-up.
    """
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * min(1.0, (step + 1) / max(warmup_steps, 1))


class Average:
    """The exponential moving average of a graph model's parameters over steps. It is validated and kept.

    It spares the noise of the last steps without a smaller learning rate. The text encoder's own parameters are not
    averaged, because its vectors would have to be computed anew.

    Args:
        decay: 0: no average, the parameters themselves.
    Source: Polyak & Juditsky 1992, doi:10.1137/0330046.
    """

    def __init__(self, model: JointModel, decay: float) -> None:
        self.decay = decay
        named = [] if decay == 0 else list(model.named_parameters())
        self.of = {n: p for n, p in named if p.requires_grad and not n.startswith("text.")}
        self.values = {name: parameter.detach().clone() for name, parameter in self.of.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the parameters after a step.

        Args:
            step: counts from 0. The first steps count less, because they start from noise.
        """
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, value in self.values.items():
            value.lerp_(self.of[name], share)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges parameters and averages; the second call undoes the first."""
        for name, value in self.values.items():
            kept = value.clone()
            value.copy_(self.of[name])
            self.of[name].copy_(kept)


def train_step(
    model: JointModel,
    tensors: GraphTensors,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    batch: TrainBatch,
    clip_norm: float,
) -> dict[str, float]:
    """Makes one step.

    Args:
        clip_norm: greatest norm of the gradient.
    Returns:
        The loss parts before the step.
    """
    optimizer.zero_grad()
    if model.attention == "relation":
        model.update_attention(tensors)
    total, parts = objective(model, tensors, batch)
    total.backward()
    rows = [] if objective.sampler is None else [objective.sampler.rows]
    torch.nn.utils.clip_grad_norm_([*model.parameters(), *rows], clip_norm)
    optimizer.step()
    return parts


def collect_trained_state(model: JointModel) -> dict[str, torch.Tensor]:
    """Collects the tensors that training changes, and the IDs that it knows."""
    return {n: t for n, t in model.state_dict().items() if not n.startswith("text.")} | {
        f"text.{name}": tensor for name, tensor in _text_tensors(model).items()
    }


def load_trained_state(model: JointModel, state: dict[str, torch.Tensor]) -> None:
    """Puts back a state that collect_trained_state collected.

    Raises:
        ArtifactError: the state is another model's.
    """
    expected = collect_trained_state(model)
    wrong = [n for n in expected.keys() | state.keys() if n not in state or n not in expected]
    wrong += [n for n in expected.keys() & state.keys() if expected[n].shape != state[n].shape]
    if wrong:
        raise ArtifactError(f"the trained model does not fit its configuration (first: {min(wrong)}). Train again.")
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(state[name])


def train(
    model: JointModel,
    tensors: GraphTensors,
    objective: Objective,
    schedule: Schedule,
    *,
    folder: Path,
    validate: Callable[[Embeddings], float],
    key: str,
    progress: Any = None,
) -> Progress:
    """Trains until validation stops improving. ``folder/model.safetensors`` then holds the best epoch.

    Args:
        validate: gives a score of the embeddings, higher is better.
        key: names the data and the configuration. A checkpoint with the same key in the folder is resumed.
        progress: a function like tqdm, or None.
    Returns:
        The progress at the end.
    """
    optimizer = make_optimizer(model, schedule, objective.sampler)
    average = Average(model, schedule.average_decay)
    now = _resume(folder, key, model, tensors, optimizer, average, objective.generator)
    with _open_log(folder / "log.jsonl", now.epoch) as log:
        while now.epoch < schedule.epochs and now.since_best < schedule.patience:
            started = time.perf_counter()
            row = _epoch(model, tensors, objective, optimizer, average, schedule, now, progress)
            if (now.epoch + 1) % schedule.validate_every == 0 or now.epoch + 1 == schedule.epochs:
                average.swap()
                row["valid_ndcg@10"] = _validate(model, tensors, now, validate, folder)
                average.swap()
            now.epoch += 1
            now.seconds += time.perf_counter() - started
            log.write(json.dumps(row) + "\n")
            log.flush()
            if now.epoch % schedule.checkpoint_every == 0:
                _save(folder, key, now, model, tensors, optimizer, average, objective.generator)
    return now


def continue_training(
    model: JointModel,
    tensors: GraphTensors,
    objective: Objective,
    schedule: Schedule,
    epochs: int,
    progress: Any = None,
) -> None:
    """Trains a trained model for some more epochs, without validation. It ends with the parameters' moving average.

    Args:
        epochs: number of further epochs.
        progress: a function like tqdm, or None.
    """
    optimizer = make_optimizer(model, schedule, objective.sampler)
    average, now = Average(model, schedule.average_decay), Progress()
    for _ in range(epochs):
        _epoch(model, tensors, objective, optimizer, average, schedule, now, progress)
        now.epoch += 1
    average.swap()
    if model.text is not None and model.text.trains and epochs % schedule.refresh_every:
        model.text.refresh()


def _epoch(
    model: JointModel,
    tensors: GraphTensors,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    average: Average,
    schedule: Schedule,
    now: Progress,
    progress: Any,
) -> EpochRow:
    """Trains for one epoch."""
    started, totals = time.perf_counter(), dict[str, float]()
    if now.epoch % schedule.attention_every == 0:
        model.update_attention(tensors)
    model.train()
    n_examples, done = len(objective.histories.examples()), 0
    bar = progress(total=n_examples, desc=f"epoch {now.epoch + 1}", unit="ex", leave=False) if progress else None
    for batch in batches(objective.histories, schedule.batch_size, objective.generator, schedule.targets):
        set_learning_rate(optimizer, now.step, schedule.warmup_steps)
        parts = train_step(model, tensors, objective, optimizer, batch, schedule.clip_norm)
        average.update(now.step)
        now.step += 1
        done += len(batch.user)
        for name, value in parts.items():
            totals[name] = totals.get(name, 0.0) + value * len(batch.user) / n_examples
        if bar is not None:
            bar.set_postfix({name: f"{value:.4f}" for name, value in parts.items()}, refresh=False)
            bar.update(len(batch.user))
    if bar is not None:
        bar.close()
    if model.text is not None and model.text.trains and (now.epoch + 1) % schedule.refresh_every == 0:
        model.text.refresh()
    seconds = time.perf_counter() - started
    return {"epoch": now.epoch + 1, "loss": totals, "train_seconds": seconds, "examples_per_second": done / seconds}


def _open_log(path: Path, epochs_kept: int) -> TextIO:
    """Opens the log for the next epoch, cut back to the epochs that a checkpoint has."""
    rows = path.read_text(encoding="utf-8").splitlines(keepends=True)[:epochs_kept] if path.is_file() else []
    write_atomically(path, "".join(rows))
    return path.open("a", encoding="utf-8")


def _validate(
    model: JointModel, tensors: GraphTensors, now: Progress, validate: Callable[[Embeddings], float], folder: Path
) -> float:
    """Scores this epoch. A new best is written to the folder."""
    score = validate(model.embeddings(tensors))
    now.since_best += 1
    if score > now.best_score:
        now.best_score, now.best_epoch, now.since_best = score, now.epoch + 1, 0
        checkpoint.save_tensors(collect_trained_state(model), folder / "model.safetensors")
    return score


def _text_tensors(model: JointModel) -> dict[str, torch.Tensor]:
    """Collects the text encoder's trained tensors, and its vectors, so that the validated vectors are served."""
    if model.text is None or not model.text.trains:
        return {}
    return model.text.list_trained_parameters() | {"vectors": model.text.vectors}


def _save(
    folder: Path,
    key: str,
    now: Progress,
    model: JointModel,
    tensors: GraphTensors,
    optimizer: torch.optim.Optimizer,
    average: Average,
    generator: torch.Generator,
) -> None:
    """Writes a checkpoint."""
    state = checkpoint.with_prefix("model", collect_trained_state(model))
    state |= checkpoint.with_prefix("optimizer", checkpoint.optimizer_tensors(optimizer))
    state |= checkpoint.with_prefix("average", average.values)
    state |= {"random/global": torch.get_rng_state(), "random/sampling": generator.get_state()}
    if model.attention == "transr" and tensors.logits is not None:
        state["attention_logits"] = tensors.logits
    if tensors.head.is_cuda:
        state["random/cuda"] = torch.cuda.get_rng_state()
    checkpoint.save_tensors(state, folder / "checkpoint.safetensors", {"key": key, "progress": vars(now)})


def _resume(
    folder: Path,
    key: str,
    model: JointModel,
    tensors: GraphTensors,
    optimizer: torch.optim.Optimizer,
    average: Average,
    generator: torch.Generator,
) -> Progress:
    """Restores the folder's checkpoint if it has this key. Otherwise removes it and starts anew."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "checkpoint.safetensors"
    if not path.is_file():
        return Progress()
    state, metadata = checkpoint.load_tensors(path)
    if metadata.get("key") != key:
        path.unlink()
        return Progress()
    load_trained_state(model, checkpoint.under_prefix("model", state))
    checkpoint.restore_optimizer(optimizer, checkpoint.under_prefix("optimizer", state))
    for name, value in checkpoint.under_prefix("average", state).items():
        average.values[name].copy_(value)
    logits = state.get("attention_logits")
    tensors.set_attention(None if logits is None else logits.to(tensors.head.device))
    torch.set_rng_state(state["random/global"])
    generator.set_state(state["random/sampling"])
    if "random/cuda" in state and tensors.head.is_cuda:
        torch.cuda.set_rng_state(state["random/cuda"])
    return Progress(**metadata["progress"])
