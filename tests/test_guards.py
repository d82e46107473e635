"""Guards: each lets a right run pass and stops the wrong one it is for, naming the tensor."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from peftlab import guards, ledger, loading, methods, models
from peftlab.guards import GuardError
from peftlab.run import Run

LORA = Run(model="tiny-mlp", method="lora", precision="fp32", size=2)
A = "model.language_model.layers.0.self_attn.q_proj.lora_A.default.weight"
ASLEEP = methods.card("lora").asleep


def attached(run: Run = LORA) -> tuple[nn.Module, models.Loaded]:
    loaded = models.load(run)
    return methods.attach(loaded, run), loaded


def named(model: nn.Module) -> dict[str, nn.Parameter]:
    return dict(methods.named_parameters(model))


def store(model: nn.Module, folder: Path) -> dict[str, torch.Tensor]:
    """Write the trainable tensors as `training.save` does; returns them."""
    tensors = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    save_file(tensors, folder / "adapter.safetensors")
    return tensors


def backward(model: nn.Module) -> None:
    ids = torch.tensor([[2] * 25 + [5, 6, 7]])
    model(input_ids=ids, pixel_values=torch.ones(1, 3, 160, 160), labels=ids).loss.backward()


# ---------------------------------------------------------------- what trains


@pytest.mark.parametrize("method", [m for m in methods.METHODS if m != "none"])
def test_every_method_passes(method: str, sizes: dict[str, int]) -> None:
    run = Run(model="tiny-mlp", method=method, precision="bf16", connector="tuned", size=sizes.get(method))
    guards.trainable(*attached(run), run)


def test_an_open_tower_is_named() -> None:
    model, loaded = attached()
    next(model.get_base_model().model.vision_tower.parameters()).requires_grad_(True)
    with pytest.raises(GuardError, match="model.vision_tower.net.weight requires a gradient, but lora with a frozen connector"):
        guards.trainable(model, loaded, LORA)


def test_lora_in_the_vision_tower_is_named() -> None:
    """A suffix instead of a full path hits every tower (haotian-liu/LLaVA#1380)."""
    from peft import LoraConfig, get_peft_model

    loaded = models.load(LORA)
    model = get_peft_model(loaded.model, LoraConfig(r=2, target_modules=["linear_1", "q_proj"]))
    with pytest.raises(GuardError, match=r"model.multi_modal_projector.linear_1.lora_A.default.weight requires a gradient"):
        guards.trainable(model, loaded, LORA)


def test_a_connector_that_should_train_is_named() -> None:
    model, loaded = attached()
    tuned = Run(**{**LORA.axes(), "connector": "tuned"})
    with pytest.raises(GuardError, match="model.multi_modal_projector.linear_1.weight does not require a gradient"):
        guards.trainable(model, loaded, tuned)


def test_a_bf16_master_is_named() -> None:
    model, loaded = attached()
    named(model)[A].data = named(model)[A].data.bfloat16()
    with pytest.raises(GuardError, match="layers.0.self_attn.q_proj.lora_A.default.weight trains in torch.bfloat16"):
        guards.trainable(model, loaded, LORA)


def test_nothing_to_train_is_an_error() -> None:
    none = Run(model="tiny-mlp", method="none", precision="fp32")
    with pytest.raises(GuardError, match="nothing trains in tiny-mlp-icons_choice-none"):
        guards.trainable(*attached(none), none)


@pytest.mark.parametrize("method", methods.METHODS)
def test_every_method_counts_live_what_its_outline_says(method: str, sizes: dict[str, int]) -> None:
    """Attached on the meta device, without weights, a method adds and trains just what it does on the model itself."""
    run = Run(model="tiny-mlp", method=method, precision="fp32", connector=methods.card(method).connectors[-1], size=sizes.get(method))
    loaded = models.load(run)
    expected = ledger.expected(run, outline=loading.outline(loaded))["table"]
    assert guards.counted(methods.attach(loaded, run), loaded.towers, expected).equals(expected)


def test_one_parameter_more_or_less_is_named() -> None:
    model, loaded = attached()
    expected = ledger.expected(LORA, outline=loading.outline(models.load(LORA)))["table"]
    wider = Run(**{**LORA.axes(), "size": 3})
    with pytest.raises(GuardError, match="in llm attn 1,344 of [0-9,]+ parameters train, but by the model's architecture and the method's card 896 of"):
        guards.counted(attached(wider)[0], loaded.towers, expected)
    next(model.get_base_model().model.vision_tower.parameters()).requires_grad_(True)
    with pytest.raises(GuardError, match="in vision [0-9,]+ of [0-9,]+ parameters train, but .* 0 of"):
        guards.counted(model, loaded.towers, expected)


# ---------------------------------------------------------------- gradients


def test_first_gradients_pass_and_only_lora_a_may_be_zero() -> None:
    model, _ = attached()
    backward(model)
    assert not named(model)[A].grad.any()
    guards.after_first_step(model, ASLEEP)


@pytest.mark.parametrize(("gradient", "says"), [(None, "got no gradient"), (0.0, "got a gradient of zeros"), (float("nan"), "not finite")])
def test_a_bad_gradient_is_named(gradient: Any, says: str) -> None:
    model, _ = attached()
    backward(model)
    b = named(model)[A.replace("lora_A", "lora_B")]
    b.grad = None if gradient is None else torch.full_like(b, gradient)
    with pytest.raises(GuardError, match=f"q_proj.lora_B.default.weight .*{says}"):
        guards.after_first_step(model, ASLEEP)


# ---------------------------------------------------------------- movement


def moved(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 1e-3


def test_a_right_run_moved() -> None:
    model, _ = attached()
    before = guards.snapshot(model)
    moved(model)
    guards.after_training(model, before)


def test_a_tensor_that_stayed_is_named() -> None:
    model, _ = attached()
    before = guards.snapshot(model)
    kept = named(model)[A].detach().clone()
    moved(model)
    named(model)[A].data.copy_(kept)
    with pytest.raises(GuardError, match="q_proj.lora_A.default.weight trains but did not move"):
        guards.after_training(model, before)


def test_one_changed_bit_of_a_frozen_weight_is_named() -> None:
    model, _ = attached(Run(**{**LORA.axes(), "precision": "bf16", "quantisation": "nf4"}))
    before = guards.snapshot(model)
    moved(model)
    named(model)["model.language_model.layers.1.mlp.up_proj.base_layer.weight"].data.view(-1)[3] ^= 1
    with pytest.raises(GuardError, match="layers.1.mlp.up_proj.base_layer.weight is frozen but changed"):
        guards.after_training(model, before)


def test_two_swapped_values_are_seen() -> None:
    model = nn.Linear(3, 3).requires_grad_(False)
    before = guards.snapshot(model)
    model.weight.data = model.weight.data.flip(0)
    with pytest.raises(GuardError, match="weight is frozen but changed"):
        guards.after_training(model, before)


def test_a_changed_buffer_is_named() -> None:
    """Batch-norm statistics of a tower left in training mode."""
    model = nn.Sequential(nn.BatchNorm1d(2).requires_grad_(False))
    before = guards.snapshot(model)
    model.train()(torch.randn(8, 2))
    with pytest.raises(GuardError, match="0.running_mean is frozen but changed"):
        guards.after_training(model, before)


def test_a_lost_tensor_is_named() -> None:
    model = nn.Linear(2, 2)
    before = guards.snapshot(model)
    model.bias = None
    with pytest.raises(GuardError, match="bias is in the model before training only"):
        guards.after_training(model, before)


# ---------------------------------------------------------------- the file


def test_a_right_file_passes(tmp_path: Path) -> None:
    model, _ = attached()
    store(model, tmp_path)
    guards.saved(model, tmp_path)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda t, n: t.pop(n), "is not in"),
        (lambda t, n: t.update({"other": t[n].clone()}), "other does not train but is in"),
        (lambda t, n: t[n].view(torch.int32).view(-1)[0].bitwise_xor_(1), "is not the tensor that was trained"),
        (lambda t, n: t.update({n: t[n].bfloat16()}), "is not the tensor that was trained"),
        (lambda t, n: t.update({n: t[n].reshape(-1)}), "is not the tensor that was trained"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, damage: Any, says: str) -> None:
    model, _ = attached()
    store(model, tmp_path)
    tensors = load_file(tmp_path / "adapter.safetensors")
    damage(tensors, next(n for n in tensors if n.endswith(A)))
    save_file(tensors, tmp_path / "adapter.safetensors")
    with pytest.raises(GuardError, match=says):
        guards.saved(model, tmp_path)


def test_another_answer_after_loading_is_an_error(tmp_path: Path) -> None:
    guards.reloaded(0.25, 0.25, tmp_path)
    with pytest.raises(GuardError, match="has a loss of 0.5 where the one that was trained has 0.25: something it depends on was not saved"):
        guards.reloaded(0.25, 0.5, tmp_path)
