"""The size that a budget of parameters allows."""

from dataclasses import replace

from peftlab import ledger, loading, methods
from peftlab.models import Loaded
from peftlab.run import Run

LARGEST = 65_536  # the largest size that a budget may choose


def largest(loaded: Loaded, run: Run) -> int:
    """The largest size whose own parameters keep within `run.budget` per cent of the base's; counted on the meta device.

    Raises ValueError where even the smallest is over the budget, where none comes near it, and of a method that trains less at a larger size.
    """
    most = run.budget / 100 * int(ledger.count(loaded.model, loaded.towers)["total"].sum())
    card = methods.card(run.method)

    def trains(size: int) -> int:
        hollow = loading.outline(loaded)
        sized = replace(run, size=size, budget=None, connector=card.connectors[0], quantisation="none")
        return sum(p.numel() for p in ledger.attached(hollow, sized).parameters() if p.requires_grad)

    low, high = 1, 2
    if (more := trains(high)) < trains(low):
        raise ValueError(f"what {run.method} trains falls as its {card.size_name} grows ({trains(low):,} parameters at 1, {more:,} at 2): give size, not budget")
    if (least := trains(low)) > most:
        raise ValueError(f"budget is {run.budget} %, {most:,.0f} parameters; {run.method} trains {least:,} at {card.size_name} 1: allow more, or choose another method or location")
    while high <= LARGEST and trains(high) <= most:
        low, high = high, 2 * high
    if high > LARGEST:
        raise ValueError(f"budget is {run.budget} %, {most:,.0f} parameters; {run.method} trains {trains(low):,} at most, whatever its {card.size_name}: allow less")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if trains(middle) <= most else (low, middle)
    return low
