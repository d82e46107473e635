"""Every method on every family: it trains, answers, is stored and comes back equal, or a run of it is refused with the reason."""

from collections.abc import Callable
from pathlib import Path

import pytest

from peftlab import inference, methods, models, training
from peftlab.models import RANDOM
from peftlab.records import Example
from peftlab.run import Run

FAMILIES = [name for name, card in models.MODELS.items() if card.source == RANDOM]


@pytest.mark.parametrize("method", [m for m in methods.METHODS if m != "none"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_method_on_every_family(name: str, method: str, examples: list[Example], agree: Callable[..., None], tmp_path: Path) -> None:
    run = Run(model=name, method=method, connector="tuned", precision="fp32", steps=2, batch_size=2)
    loaded = models.load(run)
    model = methods.attach(loaded, run)
    log = training.finetune(model, loaded, examples, run, progress=False)
    assert log.steps["loss"].between(0, 20).all()
    assert len(inference.answer(model, loaded, examples, run, max_new_tokens=2)) == len(examples)
    agree(model, loaded, examples)
    training.save(model, tmp_path)
    other = Run(**{**run.axes(), "seed": 7})
    fresh = models.load(other)
    tuned = methods.attach(fresh, other)
    assert training.answer_loss(tuned, fresh, examples, run) != training.answer_loss(model, loaded, examples, run)
    training.restore(tuned, tmp_path)
    assert training.answer_loss(tuned, fresh, examples, run) == training.answer_loss(model, loaded, examples, run)
