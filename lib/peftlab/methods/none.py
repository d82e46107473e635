"""No tuning: the base as it is, the row that every other one is read against."""

from torch import nn

from peftlab.models import Loaded
from peftlab.run import Run


def attach(loaded: Loaded, run: Run) -> nn.Module:
    """The bare model, unchanged."""
    return loaded.model


def own(name: str, loaded: Loaded, run: Run) -> bool:
    """Whether parameter `name` is the method's own: none is."""
    return False
