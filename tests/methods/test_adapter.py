"""The bottleneck adapter: the formula, the placement, and a tuner as peft knows them."""

from typing import Any

import pytest
import torch
from peft import PeftConfig, PeftModel, PeftType, get_peft_model
from torch import nn

from peftlab import methods
from peftlab.methods.adapter import PLACEMENTS, BottleneckConfig, BottleneckLayer
from peftlab.run import Run

RUN = Run(model="tiny-mlp", method="adapter", precision="fp32", size=5)


class Block(nn.Module):
    """Something with linears of the right names that is no transformers model."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 6)
        self.embed = nn.Embedding(3, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(torch.relu(self.gate_proj(x)) * self.up_proj(x))


def test_bottlenecks_are_where_zhou_2024_have_them_and_compute_their_formula(load: Any) -> None:
    model = methods.attach(load(RUN), RUN).eval()
    layers = {n: m for n, m in model.named_modules() if isinstance(m, BottleneckLayer)}
    assert len(layers) == 3 * 2
    for name, layer in layers.items():
        side = "output" if name.endswith("down_proj") else "input"
        x = torch.randn(2, 3, layer.base_layer.in_features, generator=torch.Generator().manual_seed(2))
        down, up = layer.bottleneck_down["default"].weight, layer.bottleneck_up["default"].weight

        def bend(h: torch.Tensor) -> torch.Tensor:
            return h + torch.tanh(h @ down.T) @ up.T

        assert down.shape[0] == up.shape[1] == 5
        by_hand = layer.base_layer(bend(x)) if side == "input" else bend(layer.base_layer(x))
        torch.testing.assert_close(layer(x), by_hand, atol=1e-5, rtol=1e-5)


def test_start_values_are_normal_and_no_matrix_is_zero() -> None:
    layer = BottleneckLayer(nn.Linear(400, 400), "default", BottleneckConfig(r=100), "input")
    for linear in (layer.bottleneck_down["default"], layer.bottleneck_up["default"]):
        assert linear.bias is None
        assert abs(linear.weight.std().item() - 0.02) < 0.001 and abs(linear.weight.mean().item()) < 0.001


def test_dropout_is_on_the_bottlenecks_input_alone(load: Any) -> None:
    layer = next(m for m in methods.attach(load(RUN), RUN).modules() if isinstance(m, BottleneckLayer))
    with torch.no_grad():
        layer.bottleneck_up["default"].weight.zero_()
    x = torch.randn(40, layer.base_layer.in_features)
    layer.train()
    assert torch.equal(layer(x), layer.base_layer(x)), "the residual path is dropped too"
    with torch.no_grad():
        layer.bottleneck_up["default"].weight.fill_(1.0)
    assert not torch.equal(layer(x), layer(x))


def test_works_through_peft_alone(tmp_path: Any) -> None:
    torch.manual_seed(0)
    base = Block()
    before = base(torch.ones(1, 6))
    state = {k: v.clone() for k, v in base.state_dict().items()}
    model = get_peft_model(base, BottleneckConfig(r=2, init_std=1.0))
    assert {n.rpartition(".bottleneck")[0].rpartition(".")[2] for n, p in model.named_parameters() if p.requires_grad} == {"gate_proj", "up_proj", "down_proj"}
    after = model.eval()(torch.ones(1, 6))
    with model.disable_adapter():
        assert torch.equal(model(torch.ones(1, 6)), before) and not torch.equal(after, before)
    model.save_pretrained(tmp_path)
    assert PeftConfig.from_pretrained(tmp_path).peft_type == PeftType.BOTTLENECK == "BOTTLENECK"
    other = Block()
    other.load_state_dict(state)
    torch.testing.assert_close(PeftModel.from_pretrained(other, tmp_path)(torch.ones(1, 6)), after)
    model.add_adapter("second", BottleneckConfig(r=3))
    assert not any(p.requires_grad for n, p in model.named_parameters() if ".second." in n)
    model.set_adapter("second")
    assert {n.split(".")[-2] for n, p in model.named_parameters() if p.requires_grad} == {"second"}
    model.delete_adapter("second")
    model.set_adapter("default")
    assert torch.equal(model(torch.ones(1, 6)), after)
    with pytest.raises(ValueError, match="cannot be merged"):
        model.merge_and_unload()


def test_bad_configurations_get_a_sentence() -> None:
    with pytest.raises(ValueError, match="placement is 'hulsby'; choose one of zhou2024, houlsby"):
        BottleneckConfig(placement="hulsby")
    with pytest.raises(ValueError, match="r is 0"):
        BottleneckConfig(r=0)
    with pytest.raises(ValueError, match="embed is targeted, but placement zhou2024 has a side only for gate_proj"):
        get_peft_model(Block(), BottleneckConfig(target_modules=["embed"]))


HERE = {"zhou2024": 3, "houlsby": 2, "pfeiffer": 1, "parallel": 1}


@pytest.mark.parametrize("placement", [p for p in PLACEMENTS if p != "zhou2024"])
def test_the_other_placements_start_as_the_base_and_compute_their_formula(load: Any, placement: str) -> None:
    run = Run(**{**RUN.axes(), "method": f"adapter_{placement}"})
    layers = [m for m in methods.attach(load(run), run).eval().modules() if isinstance(m, BottleneckLayer)]
    assert len(layers) == HERE[placement] * 2
    for layer in layers:
        down, up = layer.bottleneck_down["default"].weight, layer.bottleneck_up["default"].weight
        x = torch.randn(2, 3, down.shape[1] if placement == "parallel" else layer.base_layer.in_features, generator=torch.Generator().manual_seed(2))
        assert torch.equal(layer(x), layer.base_layer(x))
        with torch.no_grad():
            up.normal_(generator=torch.Generator().manual_seed(3))
        y = layer.base_layer(x)
        h = x if placement == "parallel" else y
        torch.testing.assert_close(layer(x), y + torch.tanh(h @ down.T) @ up.T, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("location", "places"), [("mlp", {"gate_proj", "up_proj", "down_proj"}), ("attn", {"q_proj", "k_proj", "v_proj", "o_proj"})])
def test_locations(load: Any, location: str, places: set[str]) -> None:
    run = Run(**{**RUN.axes(), "location": location})
    model = methods.attach(load(run), run)
    assert {n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, BottleneckLayer)} == places
