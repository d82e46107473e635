"""Prefix-Tuning: learned keys and values in front of every layer's sequence.

Li and Liang 2021, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", https://arxiv.org/abs/2101.00190. As in the
parameter counts of Zhou et al. 2024: 20 tokens, without the projection MLP. Never the identity, whatever its start values.
"""

import torch
from peft import PrefixTuningConfig, TaskType, get_peft_model
from torch import nn

from peftlab.models import Loaded, Towers
from peftlab.run import Run


def attach(loaded: Loaded, run: Run) -> nn.Module:
    """Wrap the model by peft with ``run.size`` tokens."""
    config = PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=run.resolved()["size"], prefix_projection=False)
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        return get_peft_model(loaded.model, config)


def own(name: str, towers: Towers) -> bool:
    """Whether parameter `name` is the prefix."""
    return name.startswith("prompt_encoder.")
