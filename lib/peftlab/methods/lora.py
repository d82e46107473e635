"""LoRA: a low-rank update beside every linear layer of the LLM's blocks.

Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models", https://arxiv.org/abs/2106.09685. As in Zhou et al. 2024:
on q, k, v, o, gate, up and down, alpha = 2 r, dropout 0.05, no biases.
"""

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn

from peftlab import methods
from peftlab.dropout import SparseDropout
from peftlab.models import Loaded, Towers
from peftlab.run import Run


def attach(loaded: Loaded, run: Run) -> nn.Module:
    """Wrap the model by peft; the update is zero at first, so the model equals the base."""
    rank = run.resolved()["size"]
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.05,
        bias="none",
        target_modules=methods.targets(loaded.towers, (*loaded.towers.attn, *loaded.towers.mlp)),
    )
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        model = get_peft_model(loaded.model, config)
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.cast_input_dtype_enabled = False  # autocast casts the small weights instead of the activations
            module.lora_dropout["default"] = SparseDropout(config.lora_dropout)
    return model


def own(name: str, towers: Towers) -> bool:
    """Whether parameter `name` is one of LoRA's factors, in the LLM."""
    return name.startswith(f"{towers.llm}.") and (".lora_A." in name or ".lora_B." in name)
