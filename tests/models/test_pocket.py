"""A base's delta: what a grown model learned is what merging adds."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from peftlab import methods, models, paths, training
from peftlab.models import Loaded, pocket
from peftlab.records import Example
from peftlab.run import Run


def learned(loaded: Loaded) -> torch.nn.Module:
    """A grown tiny model whose every trainable tensor has moved, to values that bf16 holds."""
    model = pocket.grow(loaded, rank=2, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_((0.2 * torch.randn(parameter.shape, generator=generator)).bfloat16().float())
    return model.eval()

LOSSES = {
    ("lora", "nothing dropped"): (5.508309364, 5.561347961, 5.543373108, 5.471586704),
    ("lora", "positions dropped"): (5.508309364, 5.561629772, 5.543740749, 5.472098351),  # drawn by numpy's SFC64
    ("prefix", "nothing dropped"): (5.523557663, 5.584615707, 5.581634521, 5.510224342),
}


@pytest.mark.parametrize(("method", "dropout"), LOSSES)
def test_the_losses_are_what_they_were(method: str, dropout: str) -> None:
    """Of four steps, as first written down: finished runs of the pocket family stay comparable. Prefix on conversations, LoRA on single questions.

    What is dropped is drawn otherwise than it first was; with nothing dropped, the losses before that change and after it are these.
    """
    rng = np.random.default_rng(0)
    asked = (("What is it?", "fog"), ("And this?", "a rose"), ("Is it thick?", "no"), ("Why?", "wind"))
    pictures = [Image.fromarray(rng.integers(0, 256, (160, 160, 3), dtype="uint8")) for _ in asked]
    examples = [Example(f"e{i}", f"p{i}", pictures[i], question, (answer,), "t", 0, "a") for i, (question, answer) in enumerate(asked)]
    lr = {"lora": 1e-3, "prefix": 1e-2}[method]
    run = Run(model="tiny-mlp", method=method, connector="tuned", lr=lr, connector_lr=1e-4, precision="fp32", steps=4, batch_size=2)
    loaded = models.load(run)
    model = methods.attach(loaded, run)
    drops = [module for module in model.modules() if isinstance(module, torch.nn.Dropout) and module.p]
    assert bool(drops) == (method == "lora")
    for module in drops if dropout == "nothing dropped" else ():
        module.p = 0.0
    log = training.finetune(model, loaded, examples, run, turns=2 if method == "prefix" else 1, progress=False)
    assert log.steps["loss"].tolist() == pytest.approx(LOSSES[method, dropout], rel=1e-6)


def test_the_merged_base_equals_the_grown_model() -> None:
    question = {"input_ids": torch.tensor([[0, 5, *[2] * 25, 7, 9]]), "pixel_values": torch.randn(1, 25, 16, generator=torch.Generator().manual_seed(2))}
    model, fresh = learned(pocket.tiny(seed=0)), pocket.tiny(seed=0).model.eval()
    with torch.no_grad():
        before = fresh(**question).logits
        pocket.merge(fresh, pocket.delta(model), {"scale": 2.0})
        torch.testing.assert_close(fresh(**question).logits, model(**question).logits, atol=1e-5, rtol=1e-4)
        assert (fresh(**question).logits - before).abs().max() > 1e-2


def test_a_delta_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="the delta holds elsewhere.weight"):
        pocket.merge(pocket.tiny(seed=0).model, {"elsewhere.weight": torch.zeros(1)}, {"scale": 2.0})


def test_a_base_is_its_weights_not_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "bases", lambda: tmp_path)
    folder = tmp_path / "pocket-mlp"
    folder.mkdir()

    def written(weights: bytes, about: dict[str, object]) -> str:
        (folder / models.DELTA).write_bytes(gzip.compress(weights))
        (folder / "delta.json").write_text(json.dumps(about))
        return models.digest("pocket-mlp")

    first = written(b"a", {"scale": 2.0, "seconds": 1})
    assert written(b"a", {"scale": 2.0, "seconds": 2}) == first
    assert len({first, written(b"b", {"scale": 2.0}), written(b"a", {"scale": 1.0})}) == 3
