"""(IA)³: learned vectors that rescale the keys, the values and the input of the MLP's down projection.

Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context Learning",
https://arxiv.org/abs/2205.05638. As in Zhou et al. 2024: on the outputs of k and v and on the input of down, all ones at first.
"""

from types import MethodType

import torch
from peft import IA3Config, get_peft_model
from peft.tuners.ia3 import IA3Layer
from torch import nn

from peftlab import methods
from peftlab.models import Loaded
from peftlab.run import Run


def attach(loaded: Loaded, run: Run) -> nn.Module:
    """Wrap the model by peft; all vectors are one at first, so the model equals the base."""
    here = methods.linears(loaded.towers, run)
    attention = [name for name in here if name.endswith(("k_proj", "v_proj"))]
    down = [name for name in here if name.endswith("down_proj")]
    config = IA3Config(
        target_modules=methods.targets(loaded.towers, [*attention, *down]),
        feedforward_modules=methods.targets(loaded.towers, down) if down else [],
    )
    with torch.random.fork_rng():  # peft draws the vectors before it sets them to one
        model = get_peft_model(loaded.model, config)
    for module in model.modules():
        if isinstance(module, IA3Layer):
            module.forward = MethodType(_forward, module)
    return model


def own(name: str, loaded: Loaded, run: Run) -> bool:
    """Whether parameter `name` is one of the vectors, in the LLM."""
    return name.startswith(f"{loaded.towers.llm}.") and ".ia3_l." in name


def _forward(layer: IA3Layer, x: torch.Tensor) -> torch.Tensor:
    """peft's forward with the fp32 vector cast to the activations instead of the activations to fp32; the same in fp32."""
    if layer.disable_adapters or layer.merged:
        return layer.base_layer(x)
    vector = layer.ia3_l["default"].flatten()
    if layer.is_feedforward:
        return layer.base_layer(x * vector.to(x.dtype))
    y = layer.base_layer(x)
    return y * vector.to(y.dtype)
