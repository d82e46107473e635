"""LoRA whose update is edited as a whole matrix after training: DARE, WiSE-FT and Model Tailor on the merged difference.

Trained as LoRA is. At the end its product is added to the weights and the difference from the base, of each matrix and of a tuned
connector, is treated as `selective` treats that of full fine-tuning. What comes out has no low rank any more: whole matrices are stored.
"""

from collections.abc import Iterator

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from peftlab import methods
from peftlab.models import Loaded
from peftlab.run import Run


def attach(loaded: Loaded, run: Run) -> nn.Module:
    """As LoRA's."""
    return methods.implementation("lora").attach(loaded, run)


def own(name: str, loaded: Loaded, run: Run) -> bool:
    """As LoRA's."""
    return methods.implementation("lora").own(name, loaded, run)


def settle(model: nn.Module) -> None:
    """Let the merged matrices be what is stored instead of the factors, which become zero."""
    for _, layer in _layers(model):
        base = layer.base_layer
        base.weight = nn.Parameter(base.weight.detach().float())
        for factors in (layer.lora_A, layer.lora_B):
            nn.init.zeros_(factors["default"].weight.requires_grad_(False))
        layer.merged_adapters.append("default")


class Merged(methods.Companion):
    """At the end edits what the base's matrices would become with LoRA's update, and puts that in their place."""

    def __init__(self, model: nn.Module, run: Run) -> None:
        self.model = model
        self.frozen = matrices = {name: layer.base_layer.weight for name, layer in _layers(model)}
        connector = {name: p for name, p in methods.named_parameters(model) if p.requires_grad and ".lora_" not in name}
        edit = run.method.removeprefix("lora_")
        self.edit = methods.implementation(edit).anchored(edit, {**matrices, **connector}, model, run)
        self.edit.start |= matrices  # they are frozen: no copy of them is needed

    def after_step(self) -> None:
        self.edit.after_step()

    def state(self) -> dict[str, torch.Tensor]:
        return {name: t for name, t in self.edit.state().items() if name.removeprefix("start.") not in self.frozen}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        self.edit.load({**state, **{f"start.{name}": t for name, t in self.frozen.items()}})
        self.edit.start |= self.frozen

    @torch.no_grad()
    def finish(self) -> None:
        for name, layer in _layers(self.model):
            self.edit.start[name] = layer.base_layer.weight.float()
            self.edit.parameters[name] = nn.Parameter(self.edit.start[name] + layer.get_delta_weight("default").float())
        self.edit.finish()
        for name, layer in _layers(self.model):
            layer.base_layer.weight = self.edit.parameters[name]
        settle(self.model)


def companion(model: nn.Module, run: Run) -> Merged:
    """What is done after training."""
    return Merged(model, run)


def _layers(model: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))
