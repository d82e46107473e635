"""What must be true of a run: which tensors train, that they got a gradient, moved, and were saved."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file
from torch import nn

from peftlab import ledger, methods
from peftlab.models import Loaded, Towers
from peftlab.run import Run


class GuardError(ValueError):
    """A run is not what its axes say; the sentence names the tensor."""


@dataclass(frozen=True)
class Snapshot:
    """The sha256 of every parameter and buffer at a moment, and which parameters trained then."""

    digests: dict[str, str]
    trainable: frozenset[str]


def trainable(model: nn.Module, loaded: Loaded, run: Run) -> None:
    """Raise GuardError unless exactly what `run` trains requires a gradient, and all of it is fp32."""
    found = 0
    for name, parameter in methods.named_parameters(model):
        expected = methods.is_trained(name, loaded, run)
        if parameter.requires_grad and not expected:
            raise GuardError(f"{name} requires a gradient, but {run.method} with a {run.connector} connector does not train it")
        if expected and not parameter.requires_grad:
            raise GuardError(f"{name} does not require a gradient, but {run.method} with a {run.connector} connector trains it")
        if expected and parameter.dtype != torch.float32:
            raise GuardError(f"{name} trains in {parameter.dtype}: small updates would round away, give it an fp32 master weight")
        found += expected
    if not found:
        raise GuardError(f"nothing trains in {run.id}: {run.method} with a {run.connector} connector needs no fine-tuning")


def counted(model: nn.Module, towers: Towers, expected: pd.DataFrame) -> pd.DataFrame:
    """The ledger of a live model (`ledger.count`); raises GuardError unless it is to the last parameter what was `expected` without weights."""
    live, key = ledger.count(model, towers), ["tower", "location"]
    both = live.merge(expected, on=key, how="outer", suffixes=("", "_expected")).fillna(0)
    for row in both.to_dict("records"):
        found, said = ([int(row[f"{what}{suffix}"]) for what in ("trainable", "total")] for suffix in ("", "_expected"))
        if found != said:
            place = " ".join(part for part in (row["tower"], row["location"]) if part != "-")
            raise GuardError(f"in {place} {found[0]:,} of {found[1]:,} parameters train, but by the model's architecture and the method's card {said[0]:,} of {said[1]:,}")
    return live


def snapshot(model: nn.Module) -> Snapshot:
    """Digests of all parameters and buffers; 0.16 s for 270 MB, and no copy on a CPU."""
    return Snapshot(
        {name: _digest(tensor) for name, tensor in _tensors(model).items()},
        frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad),
    )


def after_first_step(model: nn.Module, asleep: tuple[str, ...] = ()) -> None:
    """After the first backward pass: raise GuardError unless every trainable tensor has a finite, non-zero gradient.

    Zero is allowed where it must be: for names that hold one of the marks `asleep` (a method card's), such as LoRA's A.
    """
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            raise GuardError(f"{name} trains but got no gradient: the loss does not depend on it")
        if not torch.isfinite(parameter.grad).all():
            raise GuardError(f"{name} got a gradient that is not finite")
        if not parameter.grad.any() and not any(mark in name for mark in asleep):
            raise GuardError(f"{name} got a gradient of zeros: it would never move")


def after_training(model: nn.Module, before: Snapshot) -> None:
    """Raise GuardError unless every trainable tensor differs from `before` and every other one, buffers included, does not."""
    after = snapshot(model)
    for name in before.digests.keys() ^ after.digests.keys():
        raise GuardError(f"{name} is in the model {'after' if name in after.digests else 'before'} training only")
    for name, digest in after.digests.items():
        moved = digest != before.digests[name]
        if name in before.trainable and not moved:
            raise GuardError(f"{name} trains but did not move")
        if name not in before.trainable and moved:
            raise GuardError(f"{name} is frozen but changed in training")


def saved(model: nn.Module, folder: Path) -> None:
    """Raise GuardError unless ``folder/adapter.safetensors`` holds every trainable tensor, bit for bit, and nothing else."""
    file = folder / "adapter.safetensors"
    stored = load_file(file)
    live = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    for name in sorted(stored.keys() ^ live.keys()):
        raise GuardError(f"{name} {'is not in' if name in live else 'does not train but is in'} {file}")
    for name, tensor in live.items():
        if stored[name].shape != tensor.shape or stored[name].dtype != tensor.dtype or _digest(stored[name]) != _digest(tensor):
            raise GuardError(f"{name} in {file} is not the tensor that was trained")


def reloaded(before: float, after: float, folder: Path) -> None:
    """Raise GuardError unless a model loaded again and given what was saved answers as the live one did: the same loss, to the last bit."""
    if before != after:
        raise GuardError(f"the model restored from {folder} has a loss of {after!r} where the one that was trained has {before!r}: something it depends on was not saved")


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _digest(tensor: torch.Tensor) -> str:
    content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(content.numpy()).hexdigest()
