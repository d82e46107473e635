"""(IA)³: our forward is peft's, on keys, values and the input of down."""

from typing import Any

import torch
from peft.tuners.ia3 import IA3Layer

from peftlab import methods
from peftlab.run import Run

RUN = Run(model="tiny-mlp", method="ia3", precision="fp32")


def test_forward_is_pefts_and_the_formula(load: Any) -> None:
    model = methods.attach(load(RUN), RUN)
    layers = {n.rpartition(".")[2]: m for n, m in model.named_modules() if isinstance(m, IA3Layer)}
    assert layers.keys() == {"k_proj", "v_proj", "down_proj"}
    for name, layer in layers.items():
        with torch.no_grad():
            vector = layer.ia3_l["default"].normal_(generator=torch.Generator().manual_seed(1)).flatten()
        x = torch.randn(2, 3, layer.in_features, generator=torch.Generator().manual_seed(2))
        by_hand = layer.base_layer(x * vector) if name == "down_proj" else layer.base_layer(x) * vector
        assert torch.equal(layer(x), by_hand)
        torch.testing.assert_close(layer(x), type(layer).forward(layer, x), atol=1e-6, rtol=1e-6)
    with model.disable_adapter():
        assert torch.equal(layer(x), layer.base_layer(x))


def test_a_small_update_is_not_rounded_away() -> None:
    """In bf16 a step of 2e-4 from one is lost; the fp32 master keeps it, and the product sees it once it is large enough."""
    from peftlab import models

    run = Run(model="tiny-mlp", method="ia3", precision="bf16")
    model = methods.attach(models.load(run), run)
    vector = next(p for p in model.parameters() if p.requires_grad)
    with torch.no_grad():
        vector += 2e-4
    assert (vector > 1).all() and (vector.bfloat16() == 1).all()
