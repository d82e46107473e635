"""Full fine-tuning of the LLM: every weight of it, embeddings and output head included; the vision encoder stays frozen.

The last stage of LLaVA-1.5 (Liu et al. 2024, https://arxiv.org/abs/2310.03744), and what PEFT methods stand in for.
"""

from torch import nn

from peftlab.models import Loaded
from peftlab.run import Run


def attach(loaded: Loaded, run: Run) -> nn.Module:
    """The bare model; `methods.attach` turns the LLM's weights into fp32 masters."""
    return loaded.model


def own(name: str, loaded: Loaded, run: Run) -> bool:
    """Whether parameter `name` is the LLM's (an output head tied to the embeddings has no name of its own)."""
    return name.startswith((f"{loaded.towers.llm}.", "lm_head."))
