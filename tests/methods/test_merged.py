"""Edits of LoRA's merged difference, matrix by matrix, against their definitions."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from peftlab import methods, training
from peftlab.methods import merged, selective
from peftlab.run import Run

WORDS = torch.arange(3, 43).view(2, 20)


def learned(load: Any, method: str, *, connector: str = "frozen") -> tuple[Any, methods.Companion, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A model whose factors hold something, its companion, and every target matrix before and with LoRA's update."""
    run = Run(model="tiny-mlp", method=method, connector=connector, precision="fp32", size=4, steps=2)
    model = methods.attach(load(run), run)
    companion = methods.companion(model, run)
    generator = torch.Generator().manual_seed(2)
    before, after = {}, {}
    with torch.no_grad():
        for name, p in methods.named_parameters(model):
            if p.requires_grad:
                before[name] = p.detach().clone()
                p.add_(torch.randn(p.shape, generator=generator) * 0.3)
                after[name] = p.detach().clone()
        for name, layer in merged._layers(model):
            before[name] = layer.base_layer.weight.clone()
            after[name] = before[name] + 2 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    return model, companion, before, after


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=WORDS).logits


def matrices(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: layer.base_layer.weight.detach() for name, layer in merged._layers(model)}


def test_wise_is_half_way_and_so_is_a_tuned_connector(load: Any) -> None:
    model, companion, before, after = learned(load, "lora_wise", connector="tuned")
    companion.finish()
    now = {**matrices(model), **{n: p.detach() for n, p in methods.named_parameters(model) if "multi_modal_projector" in n}}
    assert sum("multi_modal_projector" in n for n in now) == 4
    for name, weight in now.items():
        torch.testing.assert_close(weight, (before[name] + after[name]) / 2, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("method", "drop"), [("lora_dare_90", 0.9), ("lora_dare_50", 0.5)])
def test_dare_drops_and_rescales(load: Any, method: str, drop: float) -> None:
    model, companion, before, after = learned(load, method)
    companion.finish()
    dropped, total = 0, 0
    for name, weight in matrices(model).items():
        kept = (weight - before[name]).abs() > 1e-7
        torch.testing.assert_close(weight[kept], (before[name] + (after[name] - before[name]) / (1 - drop))[kept], atol=1e-4, rtol=1e-4)
        dropped, total = dropped + int((~kept).sum()), total + kept.numel()
    assert dropped / total == pytest.approx(drop, abs=0.02)


def test_tailor_edits_as_it_would_after_full_fine_tuning(load: Any) -> None:
    """On the same difference and the same inputs, what Model Tailor itself makes of each matrix."""
    model, companion, before, after = learned(load, "lora_tailor")
    seen = dict[str, torch.Tensor]()
    for name, layer in merged._layers(model):
        layer.base_layer.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0].detach()}))
    model.train()
    model(input_ids=WORDS)
    companion.after_step()
    companion.finish()
    for name, weight in matrices(model).items():
        plain = selective.Tailor({name: nn.Parameter(after[name].clone())}, Run(model="tiny-mlp", method="tailor", precision="fp32", steps=1))
        plain.start[name] = before[name]
        plain.see(name, seen[name])
        plain.finish()
        torch.testing.assert_close(weight, plain.parameters[name].detach(), atol=1e-4, rtol=1e-3)
        assert not torch.allclose(weight, after[name], atol=1e-3)


def test_what_is_stored_is_the_whole_matrix_and_answers_the_same(load: Any, tmp_path: Path) -> None:
    model, companion, _, _ = learned(load, "lora_dare_50")
    companion.finish()
    run = Run(model="tiny-mlp", method="lora_dare_50", precision="fp32", size=4, steps=2)
    training.save(model, tmp_path)
    assert not any(p.requires_grad for n, p in model.named_parameters() if ".lora_" in n)
    fresh = methods.settled(load(run), run)
    assert not torch.allclose(logits(fresh), logits(model), atol=1e-3)
    training.restore(fresh, tmp_path)
    assert torch.equal(logits(fresh), logits(model))
    with pytest.raises(ValueError, match="tensors differ"):
        training.restore(methods.attach(load(run), run), tmp_path)


def test_it_trains_what_lora_trains(load: Any) -> None:
    trained = []
    for method in ("lora", "lora_wise"):
        run = Run(model="tiny-mlp", method=method, precision="fp32", size=4)
        trained.append({n: p.detach() for n, p in methods.named_parameters(methods.attach(load(run), run)) if p.requires_grad})
    assert trained[0].keys() == trained[1].keys() and all(torch.equal(p, trained[1][n]) for n, p in trained[0].items())
