"""Every method on every family: it trains, answers, is stored and comes back equal, or a run of it is refused with the reason."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from peftlab import features, inference, methods, models, paths, training
from peftlab.models import RANDOM, Loaded
from peftlab.records import Example
from peftlab.run import Run

FAMILIES = [name for name, card in models.MODELS.items() if card.source == RANDOM]


def reach(model: nn.Module, loaded: Loaded, examples: list[Example]) -> None:
    """Assert that the model is given all that the processor says of its tokens and pictures, whatever is wrapped around it."""
    given: dict[str, object] = {}
    handle = loaded.model.register_forward_pre_hook(lambda _, args, kwargs: given.update(kwargs), with_kwargs=True)
    pictures = features.encode(loaded, [e.image for e in examples])
    batch = pictures.batch([pictures.tokens(e.image, e.question) for e in examples], [e.image for e in examples])
    device = next(model.parameters()).device
    with torch.no_grad():
        model(**{name: tensor.to(device) for name, tensor in batch.items()})
    handle.remove()
    missing = [name for name in batch if given.get(name) is None]
    assert not missing, f"{missing} did not reach the model"


@pytest.mark.parametrize("method", [m for m in methods.METHODS if m != "none"])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_method_on_every_family(name: str, method: str, examples: list[Example], loud: Callable[[Run], Loaded], agree: Callable[..., None], sizes: dict[str, int], tmp_path: Path) -> None:
    axes = {"model": name, "method": method, "connector": "tuned", "precision": "fp32", "steps": 16 if method == "half_tuning" else 2, "batch_size": 2, "size": sizes.get(method)}
    if (method, models.card(name).family) in methods.REFUSED:
        with pytest.raises(ValueError, match=f"method {method} on model {name}: "):
            Run(**axes)
        return
    run = Run(**axes)
    loaded = loud(run)
    model = methods.attach(loaded, run)
    log = training.finetune(model, loaded, examples, run, progress=False)
    assert log.steps["loss"].between(0, 50).all()
    assert len(inference.answer(model, loaded, examples, run, max_new_tokens=2)) == len(examples)
    agree(model, loaded, examples)
    reach(model, loaded, examples)
    training.save(model, tmp_path)
    other = run if methods.card(method).seeded else Run(**{**run.axes(), "seed": 7})
    fresh = loud(other)
    tuned = methods.settled(fresh, other)
    assert training.answer_loss(tuned, fresh, examples, run) != training.answer_loss(model, loaded, examples, run)
    training.restore(tuned, tmp_path)
    assert training.answer_loss(tuned, fresh, examples, run) == training.answer_loss(model, loaded, examples, run)


@pytest.mark.parametrize("name", FAMILIES)
def test_everything_trains_in_bf16_on_every_family(name: str, examples: list[Example], loud: Callable[[Run], Loaded], monkeypatch: pytest.MonkeyPatch) -> None:
    """Full fine-tuning mixes most: words and connector in fp32 beside a frozen encoder in bf16."""
    monkeypatch.setenv("PEFTLAB_BF16", "1")
    run = Run(model=name, method="full", connector="tuned", precision="bf16", steps=2, batch_size=2)
    loaded = loud(run)
    model = methods.attach(loaded, run)
    assert training.finetune(model, loaded, examples, run, progress=False).steps["loss"].between(0, 50).all()
    assert len(inference.answer(model, loaded, examples, run, max_new_tokens=2)) == len(examples)


def test_the_readme_says_what_is_refused() -> None:
    readme = (paths.root() / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \|$", readme, re.MULTILINE))
    assert rows.keys() == {card.family for card in models.MODELS.values()}
    for family, said in rows.items():
        refused = [method for method in methods.METHODS if (method, family) in methods.REFUSED]
        assert said == (", ".join(refused) or "none")
    whole = {card.label for card in methods.METHODS.values() if card.quantisations == ("none",) and card.group == "variant"}
    sentence = next(line for line in readme.splitlines() if line.startswith("Selective methods (SPIDER"))
    assert all(label in sentence for label in whole)
