"""LoRA: a low-rank update beside every linear layer of the LLM's blocks.

Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", https://arxiv.org/abs/2106.09685. As in Zhou et al. 2024:
on q, k, v, o, gate, up and down, alpha = 2 r, dropout 0.05, no biases.

Two methods are LoRA with another optimiser: LoRA+ (Hayou et al. 2024, https://arxiv.org/abs/2402.12354) gives B a rate 16 times that of
A; LoRA-FA (Zhang et al. 2023, https://arxiv.org/abs/2308.03303) leaves A as it was drawn and trains B alone.
"""

from types import MethodType

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn

from peftlab import methods
from peftlab.dropout import SparseDropout
from peftlab.models import Loaded
from peftlab.run import Run


def attach(loaded: Loaded, run: Run) -> nn.Module:
    """Wrap the model by peft; the update is zero at first, so the model equals the base."""
    rank = run.resolved()["size"]
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.05,
        bias="none",
        target_modules=methods.targets(loaded.towers, methods.linears(loaded.towers, run)),
    )
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        model = get_peft_model(loaded.model, config)
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.lora_dropout["default"] = SparseDropout(config.lora_dropout)
            module.forward = MethodType(_forward, module)
    return model


def own(name: str, loaded: Loaded, run: Run) -> bool:
    """Whether parameter `name` is one of LoRA's factors that train, in the LLM."""
    factor = ".lora_B." in name or (".lora_A." in name and run.method != "lora_fa")
    return factor and name.startswith(f"{loaded.towers.llm}.")


def rate(name: str, run: Run) -> float:
    """LoRA+'s factor for B."""
    return 16.0 if run.method == "lora_plus" and ".lora_B." in name else 1.0


def _forward(layer: LoraLayer, x: torch.Tensor) -> torch.Tensor:
    """peft's forward, the same to rounding, in fewer passes over the wide tensors: on a CPU they cost more than the products.

    (..., in) -> (..., out). Activations are not cast to the factors' fp32; autocast casts the factors. On a GPU it is the number of operations
    that costs, so that there are as few as can be.
    """
    y = layer.base_layer(x)
    if layer.disable_adapters or layer.merged:
        return y
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight  # (r, in), (out, r)
    h = F.linear(layer.lora_dropout["default"](x), down)
    if x.device.type != "cpu":
        return torch.add(y, F.linear(h, up), alpha=layer.scaling["default"])
    h = h * layer.scaling["default"]
    return torch.addmm(y.flatten(0, -2), h.flatten(0, -2), up.t()).view(y.shape)
