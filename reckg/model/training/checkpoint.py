"""Checkpoints of training in safetensors and JSON. A killed run resumes from them exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from reckg.errors import ArtifactError
from reckg.files.atomic_folder import written_file


def save_tensors(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, Any] | None = None) -> None:
    """Writes a safetensors file beside and renames it into place.

    Args:
        tensors: by name, on any device.
        metadata: kept as JSON in the file's header.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with written_file(path) as beside:
        save_file(plain, beside, metadata={"json": json.dumps(metadata or {})})


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Reads a file that save_tensors wrote.

    Returns:
        The tensors by name, and the metadata.
    Raises:
        ArtifactError: the file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get("json", "{}"))
        return load_file(path), metadata
    except (OSError, SafetensorError, ValueError) as error:
        raise ArtifactError(f"{path.name} cannot be read ({error}): remove {path.parent} and train again.") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Lists AdamW's state as named tensors."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{key}": value for index, values in state.items() for key, value in values.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Puts back the state that optimizer_tensors listed.

    Args:
        optimizer: over the same parameters, in the same order.
        tensors: the state by name.
    """
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def with_prefix(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Puts a prefix before every name."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def under_prefix(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Selects the tensors with a prefix and takes it off their names."""
    return {name[len(prefix) + 1 :]: t for name, t in tensors.items() if name.startswith(prefix + "/")}
