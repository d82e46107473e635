"""Prompt-Tuning: learned embeddings in front of the LLM's sequence.

Lester et al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning", https://arxiv.org/abs/2104.08691: the virtual tokens start
as embeddings of words drawn from the vocabulary. peft's own tuner puts them in front of the words before the picture is put in, where a
left-padded batch has its pads behind them; here they go in at the LLM's door, with positions counted from them and pads masked, so that
an answer does not depend on who else is in the batch. Never the identity.
"""

from typing import Any

import torch
from torch import nn

from peftlab.models import Loaded
from peftlab.run import Run


class SoftPrompt(nn.Module):
    """`weight` (tokens, width) goes in front of every sequence that the LLM reads, and its positions are cut from what comes out."""

    def __init__(self, words: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(words.detach().float().clone())

    def before(self, llm: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Prepend at the first step of a sequence; afterwards only count on."""
        embeds = named.get("inputs_embeds")
        if embeds is None:
            embeds = llm.get_input_embeddings()(named.pop("input_ids", None) if not positional else positional[0])
        rows, length, _ = embeds.shape
        tokens, cache = len(self.weight), named.get("past_key_values")
        first = cache is None or cache.get_seq_length() == 0
        mask = named.get("attention_mask")
        mask = torch.ones(rows, length + (0 if first else cache.get_seq_length() - tokens), dtype=torch.long, device=embeds.device) if mask is None else mask
        places = named.get("position_ids")
        places = (mask.cumsum(-1) - 1).clamp(min=0)[:, -length:] if places is None else places
        places = places + tokens
        if first:
            embeds = torch.cat([self.weight.to(embeds.dtype).expand(rows, -1, -1), embeds], dim=1)
            own = torch.arange(tokens, device=places.device).expand(*places.shape[:-1], tokens)
            places = torch.cat([own, places], dim=-1)
            if named.get("visual_pos_masks") is not None:  # where Qwen3-VL adds what deeper layers of the encoder saw
                named = {**named, "visual_pos_masks": torch.nn.functional.pad(named["visual_pos_masks"], (tokens, 0))}
        mask = torch.cat([mask.new_ones(rows, tokens), mask], dim=1)
        self.cut = tokens if first else 0
        return (), {**named, "input_ids": None, "inputs_embeds": embeds, "attention_mask": mask, "position_ids": places}

    def after(self, llm: nn.Module, positional: tuple[Any, ...], named: dict[str, Any], out: Any) -> Any:
        """Cut the prompt's own positions."""
        out.last_hidden_state = out.last_hidden_state[:, self.cut :]
        return out


def attach(loaded: Loaded, run: Run) -> nn.Module:
    """The bare model with ``run.size`` virtual tokens in front of its LLM."""
    llm = loaded.model.get_submodule(loaded.towers.llm)
    vocabulary = llm.get_input_embeddings().weight
    drawn = torch.randint(len(vocabulary), (run.resolved()["size"],), generator=torch.Generator().manual_seed(run.seed))
    prompt = SoftPrompt(vocabulary[drawn.to(vocabulary.device)])
    loaded.model.soft_prompt = prompt
    llm.register_forward_pre_hook(prompt.before, with_kwargs=True)
    llm.register_forward_hook(prompt.after, with_kwargs=True)
    return loaded.model


def own(name: str, loaded: Loaded, run: Run) -> bool:
    """Whether parameter `name` is the prompt."""
    return name.startswith("soft_prompt.")
