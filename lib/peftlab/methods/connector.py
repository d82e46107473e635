"""Connector only: the layers between vision encoder and LLM train, both towers stay as they are.

The first stage of LLaVA (Liu et al. 2023, https://arxiv.org/abs/2304.08485) used as a method of its own: the control that says
how much of "PEFT with a tuned connector" is the connector.
"""

from torch import nn

from peftlab.models import Loaded
from peftlab.run import Run


def attach(loaded: Loaded, run: Run) -> nn.Module:
    """The bare model; the connector is opened by `methods.attach`, as it is beside every method with a tuned connector."""
    return loaded.model


def own(name: str, loaded: Loaded, run: Run) -> bool:
    """Whether parameter `name` is the method's own: none is, the connector belongs to the connector axis."""
    return False
