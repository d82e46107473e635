"""What a training that was cut off needs to go on at the same losses."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from peftlab import methods

EVERY = float(os.environ.get("PEFTLAB_CHECKPOINT_SECONDS", 300))  # between checkpoints: what a kill can cost


def save(file: Path, step: int, model: nn.Module, optimiser: Any, companion: methods.Companion, rows: list[dict[str, float]]) -> None:
    """Write what the loop holds after `step` steps to `file`, whole or not at all: trained tensors, moments, the method's state, random states, the log.

    Raises OSError where the disk is full or not writable; what was there before stays.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    tensors = {f"model/{name}": p for name, p in trained.items()}
    tensors |= {f"optimiser/{key}/{name}": value for name, p in trained.items() for key, value in optimiser.state[p].items()}
    tensors |= {f"companion/{name}": tensor for name, tensor in companion.state().items()}
    tensors |= {f"random/{device}": state for device, state in _random_states().items()}
    temporary = file.with_name(f"{file.name}.{os.getpid()}")  # named like the file: who removes that removes what a kill left
    try:
        save_file({name: torch.as_tensor(t).detach().cpu().contiguous() for name, t in tensors.items()}, temporary, metadata={"step": str(step), "rows": json.dumps(rows)})
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def load(file: Path, model: nn.Module, optimiser: Any, companion: methods.Companion) -> tuple[int, list[dict[str, float]]]:
    """Take back what `save` wrote; returns the steps done and their log.

    Raises ValueError where the file holds another set of trained tensors than `model` does.
    """
    parts: dict[str, dict[str, torch.Tensor]] = {"model": {}, "optimiser": {}, "companion": {}, "random": {}}
    with safe_open(file, "pt") as stored:
        about = stored.metadata()
        for name in stored.keys():
            part, _, rest = name.partition("/")
            parts[part][rest] = stored.get_tensor(name)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    strange = sorted(set(trained) ^ set(parts["model"]))
    if strange:
        raise ValueError(f"{file} is a checkpoint of another training: {strange[0]} trains in one of them only; delete it to begin again")
    with torch.no_grad():
        for name, p in trained.items():
            p.copy_(parts["model"][name])
    for key, tensor in parts["optimiser"].items():
        moment, _, name = key.partition("/")
        optimiser.state[trained[name]][moment] = tensor.to(trained[name].device)
    device = next(iter(trained.values())).device
    companion.load({name: tensor if tensor.dtype == torch.uint8 else tensor.to(device) for name, tensor in parts["companion"].items()})
    torch.set_rng_state(parts["random"]["cpu"])
    if "cuda" in parts["random"]:
        torch.cuda.set_rng_state(parts["random"]["cuda"], device)
    rows: list[dict[str, Any]] = json.loads(about["rows"])
    return int(about["step"]), rows


def _random_states() -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else states
