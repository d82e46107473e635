"""LoRA: our forward is peft's, and merged equals unmerged."""

from typing import Any

import torch
from peft.tuners.lora import LoraLayer

from peftlab import methods
from peftlab.run import Run

RUN = Run(model="tiny-mlp", method="lora", precision="fp32", size=4)


def attached(load: Any) -> Any:
    """A model whose B is not zero, in eval mode."""
    model = methods.attach(load(RUN), RUN).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    return model


def test_forward_is_pefts(load: Any) -> None:
    layers = [m for m in attached(load).modules() if isinstance(m, LoraLayer)]
    assert len(layers) == 7 * 2
    for layer in layers:
        x = torch.randn(2, 3, layer.in_features, generator=torch.Generator().manual_seed(2))
        torch.testing.assert_close(layer(x), type(layer).forward(layer, x), atol=1e-6, rtol=1e-6)


def test_gradients_are_pefts(load: Any) -> None:
    layer = next(m for m in attached(load).modules() if isinstance(m, LoraLayer))
    x = torch.randn(2, 3, layer.in_features, generator=torch.Generator().manual_seed(2))
    both = []
    for forward in (layer.forward, lambda x: type(layer).forward(layer, x)):
        layer.zero_grad()
        forward(x).square().sum().backward()
        both.append([layer.lora_A["default"].weight.grad.clone(), layer.lora_B["default"].weight.grad.clone()])
    for ours, theirs in zip(*both, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_scale_and_dropout_are_those_of_zhou_2024(load: Any) -> None:
    layer = next(m for m in attached(load).modules() if isinstance(m, LoraLayer))
    assert layer.scaling["default"] == 2.0  # alpha = 2 r
    assert layer.lora_dropout["default"].p == 0.05
    x = torch.ones(64, layer.in_features)
    layer.train()
    assert not torch.equal(layer(x), layer(x))


def test_merged_equals_unmerged(load: Any) -> None:
    model = attached(load)
    x = torch.randint(3, 80, (2, 9), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        unmerged = model(input_ids=x).logits
        model.merge_adapter()
        torch.testing.assert_close(model(input_ids=x).logits, unmerged, atol=1e-4, rtol=0)
        model.unmerge_adapter()
        with model.disable_adapter():
            assert not torch.allclose(model(input_ids=x).logits, unmerged, atol=1e-3)
        merged = model.merge_and_unload()
        torch.testing.assert_close(merged(input_ids=x).logits, unmerged, atol=1e-4, rtol=0)
