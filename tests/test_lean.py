"""Blocks that cost less in training compute what transformers' own do, and are put aside where they do not fit."""

import copy

import pytest
import torch
from PIL import Image
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm, eager_attention_forward

from peftlab import lean, loading, methods, models, training
from peftlab.records import Example
from peftlab.run import Run

FAMILIES = ["tiny-mlp", "tiny-merger", "tiny-resampler", "tiny-llava", "tiny-llava-onevision", "tiny-qwen2-vl", "tiny-qwen3-vl", "tiny-smolvlm2", "tiny-internvl3", "tiny-gemma3"]


@pytest.fixture(autouse=True)
def _on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "best_attention", lambda: lean.GROUPED)


def norm(dtype: torch.dtype) -> LlamaRMSNorm:
    made = LlamaRMSNorm(576, eps=1e-5).to(dtype).requires_grad_(False)
    made.weight.data.uniform_(0.5, 1.5)
    return made


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_norm_gives_the_same_values_and_a_gradient_no_less_exact(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    theirs, x, gradient = norm(dtype), torch.randn(4, 30, 576).to(dtype), torch.randn(4, 30, 576).to(dtype)
    ours, exact = copy.deepcopy(theirs), copy.deepcopy(theirs).double()
    lean.lean(ours)
    found = {}
    for name, module in (("ours", ours), ("theirs", theirs)):
        given = x.clone().requires_grad_()
        out = module(given)
        out.backward(gradient)
        found[name] = (out, given.grad)
        assert given.grad.dtype == dtype
    wide = x.double().requires_grad_()
    (exact.weight * wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)).backward(gradient.double())
    assert torch.equal(found["ours"][0], found["theirs"][0])
    wrong = {name: (grad.double() - wide.grad).abs().mean() for name, (_, grad) in found.items()}
    assert wrong["ours"] <= 1.05 * wrong["theirs"]


def test_a_norm_keeps_its_input_and_a_number_a_row() -> None:
    module, held = norm(torch.bfloat16), list[torch.Tensor]()
    lean.lean(module)
    x = torch.randn(2, 5, 576, dtype=torch.bfloat16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: held.append(tensor) or tensor, lambda tensor: tensor):
        module(x)
    assert sorted(tensor.numel() for tensor in held if tensor.data_ptr() != module.weight.data_ptr()) == [10, 5760]


def test_a_norm_that_trains_is_transformers_own() -> None:
    module = norm(torch.float32)
    lean.lean(module)
    module.weight.requires_grad_(True)
    module(torch.randn(2, 5, 576)).sum().backward()
    assert module.weight.grad is not None and module.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("shared", [1, 3])
def test_attention_is_eager_attention(shared: int) -> None:
    torch.manual_seed(0)
    module = nn.Module().eval()
    module.num_key_value_groups = 6 // shared
    q, k, v = torch.randn(2, 6, 7, 8), torch.randn(2, shared, 9, 8), torch.randn(2, shared, 9, 8)
    mask = torch.zeros(2, 1, 7, 9)
    mask[0, :, :, 6:] = torch.finfo(torch.float32).min
    found = []
    for function in (lean.attention, eager_attention_forward):
        given = [t.clone().requires_grad_() for t in (q, k, v)]
        out, weights = function(module, *given, mask, scaling=8**-0.5)
        out.square().sum().backward()
        found.append((out, weights, *(t.grad for t in given)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_attention_with_capped_scores_is_refused() -> None:
    q = torch.randn(1, 2, 3, 4)
    with pytest.raises(ValueError, match="caps its scores"):
        lean.attention(nn.Module(), q, q, q, None, scaling=1.0, softcap=50.0)


@pytest.mark.parametrize("model", FAMILIES)
def test_a_model_trains_as_it_does_with_transformers_own(model: str) -> None:
    colours = ("grey", "red", "green", "blue")
    examples = [Example(f"e{n}", f"p{n}", Image.new("RGB", (160, 160), colour), f"What is {n}?", (colour,), "t", 0, "a") for n, colour in enumerate(colours)]
    run = Run(model=model, method="lora", precision="fp32", steps=3, batch_size=4, lr=1e-2)
    losses, leaned = [], None
    for undone in (False, True):
        loaded = models.load(run)
        if undone:
            lean.plain(loaded.model)
        else:
            leaned = [vars(module).get("forward") for module in loaded.model.modules() if type(module).__name__.endswith("RMSNorm")]
        log = training.finetune(methods.attach(loaded, run), loaded, examples, run, progress=False)
        losses.append(log.steps["loss"].to_numpy())
    assert losses[0] == pytest.approx(losses[1], rel=2e-4)
    assert bool(leaned) and all(leaned) == (model != "tiny-gemma3")
