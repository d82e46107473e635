"""Prefix-Tuning: learned keys and values in front of every layer's sequence.

Li and Liang 2021, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", https://arxiv.org/abs/2101.00190. As in the
parameter counts of Zhou et al. 2024: 20 tokens, without the projection MLP. Never the identity, whatever its start values.
"""

from collections.abc import Callable
from typing import Any

import torch
from peft import PrefixTuningConfig, TaskType, get_peft_model
from torch import nn

from peftlab.models import Loaded
from peftlab.run import Run


def attach(loaded: Loaded, run: Run) -> nn.Module:
    """Wrap the model by peft with ``run.size`` tokens."""
    size = run.resolved()["size"]
    config = PrefixTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=size, prefix_projection=False)
    inner = loaded.model.model
    if hasattr(inner, "get_rope_index"):
        inner.register_forward_pre_hook(_places(size), with_kwargs=True)
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        return get_peft_model(loaded.model, config)


def own(name: str, loaded: Loaded, run: Run) -> bool:
    """Whether parameter `name` is the prefix."""
    return name.startswith("prompt_encoder.")


def _places(size: int) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]]]:
    """A hook that numbers tokens in three dimensions (Qwen-VL) from `size` on, the prefix coming first.

    The model itself would look for the pictures in a mask that is `size` tokens longer than the text, or take the filled cache for a
    conversation that goes on. What `generate` numbers, before there is a prefix, peft moves by `size`.
    """

    def hook(model: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if given.get("position_ids") is not None:
            return args, given
        if given.get("mm_token_type_ids") is None:  # text alone is numbered one by one
            rows, length = (given["inputs_embeds"] if given.get("input_ids") is None else given["input_ids"]).shape[:2]
            places = torch.arange(size, size + length, device=next(model.parameters()).device)
            return args, {**given, "position_ids": places.expand(3, rows, -1)}
        mask = None if given.get("attention_mask") is None else given["attention_mask"][:, size:]
        pictures = {name: given[name] for name in ("image_grid_thw", "mm_token_type_ids")}
        places, model.rope_deltas = model.get_rope_index(given["input_ids"], attention_mask=mask, **pictures)
        return args, {**given, "position_ids": places + size}

    return hook
