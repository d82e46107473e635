"""Selective tuning: SPIDER against a plain implementation of its equations, its ablations and rivals against their definitions."""

import math

import pytest
import torch
from torch import nn

from peftlab import methods, models
from peftlab.methods import selective
from peftlab.run import Run

SHAPES = {"m.layers.0.self_attn.q_proj.weight": (6, 5), "m.layers.0.mlp.down_proj.weight": (4, 9), "m.layers.0.input_layernorm.weight": (7,), "m.layers.0.flat": (3,)}


def parameters() -> dict[str, nn.Parameter]:
    """Tensors of several shapes; the last is constant, as norms are at first."""
    generator = torch.Generator().manual_seed(0)
    found = {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in SHAPES.items()}
    with torch.no_grad():
        found["m.layers.0.flat"].fill_(1.0)
    return found


def run(method: str) -> Run:
    return Run(model="tiny-mlp", method=method, precision="fp32")


def train(method: str, steps: int = 60) -> tuple[dict[str, nn.Parameter], selective.Anchored, list[dict[str, torch.Tensor]]]:
    """Adam on noisy gradients towards a target, with the companion of a method; also the raw gradients of every step."""
    live = parameters()
    companion = selective.COMPANIONS[method](live, run(method))
    optimiser, generator, seen = torch.optim.AdamW(live.values(), lr=1e-2, weight_decay=0.0), torch.Generator().manual_seed(1), []
    for _ in range(steps):
        noise = {n: torch.randn(p.shape, generator=generator) for n, p in live.items()}
        loss = sum(((p - 2) ** 2 + p * noise[n]).sum() for n, p in live.items()) + companion.penalty()
        loss.backward()
        seen.append({n: p.grad.clone() for n, p in live.items()})
        companion.after_backward()
        nn.utils.clip_grad_norm_(live.values(), 1.0)
        optimiser.step()
        companion.after_step()
        optimiser.zero_grad(set_to_none=True)
    companion.finish()
    return live, companion, seen


def by_hand(steps: int) -> dict[str, list[float]]:
    """SPIDER written out element by element, in double precision but for the optimiser, which is torch's."""

    def scores(values: list[float]) -> list[float]:
        sizes = [abs(v) for v in values]
        mean = sum(sizes) / len(sizes)
        spread = math.sqrt(sum((s - mean) ** 2 for s in sizes) / (len(sizes) - 1))
        if spread < 1e-12:
            return [0.5 if mean else 0.0] * len(sizes)
        return [1 / (1 + math.exp(-(s - mean) / spread)) for s in sizes]

    live = parameters()
    start = {n: p.detach().flatten().tolist() for n, p in live.items()}
    summed = {n: [0.0] * len(v) for n, v in start.items()}
    optimiser, generator = torch.optim.AdamW(live.values(), lr=1e-2, weight_decay=0.0), torch.Generator().manual_seed(1)
    for _ in range(steps):
        noise = {n: torch.randn(p.shape, generator=generator) for n, p in live.items()}
        sum(((p - 2) ** 2 + p * noise[n]).sum() for n, p in live.items()).backward()
        raw = {n: p.grad.flatten().tolist() for n, p in live.items()}
        nn.utils.clip_grad_norm_(live.values(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        for name, p in live.items():
            summed[name] = [a + g for a, g in zip(summed[name], raw[name])]
            gained, known = scores(summed[name]), scores(start[name])
            weights = [g / (g + i) if g > i else 0.0 for g, i in zip(gained, known)]
            chosen = [w for w in weights if w > 0]
            mask = [min(1.0, w / (sum(chosen) / len(chosen))) for w in weights] if chosen else weights
            now = p.detach().flatten().tolist()
            with torch.no_grad():
                p.copy_(torch.tensor([m * w + (1 - m) * s for m, w, s in zip(mask, now, start[name])]).view(p.shape))
    return {n: p.detach().flatten().tolist() for n, p in live.items()}


def test_spider_is_its_equations() -> None:
    live, _, _ = train("spider", 60)
    for name, expected in by_hand(60).items():
        torch.testing.assert_close(live[name].detach().flatten(), torch.tensor(expected), atol=1e-6, rtol=1e-6)
    assert max(float((p - parameters()[n]).abs().max()) for n, p in live.items()) > 0.1, "nothing was learned: the test would prove nothing"


@pytest.mark.parametrize("method", ["spider", "spider_hard", "largest_gradient"])
def test_masks_see_the_raw_gradients_of_all_steps(method: str) -> None:
    _, companion, seen = train(method, 5)
    for name, total in companion.summed.items():
        torch.testing.assert_close(total, sum(step[name] for step in seen))


@pytest.mark.parametrize(("method", "rule"), [("smallest_magnitude", lambda c, n: -c.start[n].abs()), ("largest_gradient", lambda c, n: c.summed[n].abs())])
def test_half_of_each_tensor_is_where_it_was(method: str, rule: object) -> None:
    live, companion, _ = train(method, 20)
    for name, p in live.items():
        moved = (p != companion.start[name]).flatten()
        assert moved.sum() == round(0.5 * p.numel())
        order = rule(companion, name).flatten()
        assert order[moved].min() >= order[~moved].max()


def test_a_random_half_is_the_seeds() -> None:
    first, companion, _ = train("random_half", 5)
    again, _, _ = train("random_half", 5)
    for name, p in first.items():
        assert torch.equal(p != companion.start[name], companion.drawn[name]) and torch.equal(p, again[name])


def test_a_hard_mask_is_spiders_selection() -> None:
    soft, hard = train("spider", 3)[1], train("spider_hard", 3)[1]
    hard.summed, hard.start = soft.summed, soft.start
    for name in SHAPES:
        assert torch.equal(hard.mask(name) > 0, soft.mask(name) > 0)
        assert set(hard.mask(name).unique().tolist()) <= {0.0, 1.0} and soft.mask(name).max() <= 1


def test_constant_tensors_give_no_nan() -> None:
    for tensor in (torch.zeros(5), torch.ones(5), torch.tensor([3.0])):
        assert torch.isfinite(selective.score(tensor)).all()
    assert not selective.score(torch.zeros(5)).any()


def test_half_tuning_leaves_half_of_a_blocks_matrices_each_step() -> None:
    model = models.load(run("half_tuning")).model
    live = {n: nn.Parameter(p.detach().float().clone()) for n, p in model.named_parameters() if "language_model.layers." in n}
    companion = selective.COMPANIONS["half_tuning"](live, run("half_tuning"))
    kept = []
    for _ in range(6):
        for p in live.values():
            p.grad = torch.ones_like(p)
        companion.after_backward()
        trains = {n for n, p in live.items() if p.grad is not None}
        for block in ("layers.0.", "layers.1."):
            assert sum("self_attn" in n for n in trains if block in n) == 2
            assert sum("mlp" in n for n in trains if block in n) in (1, 2)
            assert sum("norm" in n for n in trains if block in n) == 1
        kept.append(frozenset(trains))
    assert len(set(kept)) > 1, "the half is not drawn anew"


@pytest.mark.parametrize(("method", "penalty"), [("l2_sp", lambda d: 1e-3 * d.square().sum()), ("l1_sp", lambda d: 1e-6 * d.abs().sum())])
def test_penalties(method: str, penalty: object) -> None:
    live = parameters()
    companion = selective.COMPANIONS[method](live, run(method))
    assert float(companion.penalty()) == 0.0
    with torch.no_grad():
        for p in live.values():
            p.add_(0.5)
    expected = sum(float(penalty(torch.full(shape, 0.5))) for shape in SHAPES.values())
    assert float(companion.penalty()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("method", "drop"), [("dare_90", 0.9), ("dare_50", 0.5)])
def test_dare_drops_and_rescales(method: str, drop: float) -> None:
    live = {"m.layers.0.mlp.down_proj.weight": nn.Parameter(torch.zeros(200, 200))}
    companion = selective.COMPANIONS[method](live, run(method))
    (weight,) = live.values()
    with torch.no_grad():
        weight.fill_(1.0)
    companion.finish()
    values, counts = weight.detach().unique(return_counts=True)
    torch.testing.assert_close(values, torch.tensor([0.0, 1 / (1 - drop)]))
    assert abs(float(counts[0]) / 40_000 - drop) < 0.01


def test_wise_is_half_way() -> None:
    live = parameters()
    companion = selective.COMPANIONS["wise"](live, run("wise"))
    with torch.no_grad():
        for p in live.values():
            p.add_(1.0)
    companion.finish()
    for name, p in live.items():
        torch.testing.assert_close(p.detach(), companion.start[name] + 0.5)


@pytest.mark.parametrize("method", selective.COMPANIONS)
def test_a_resumed_companion_goes_on_as_it_was(method: str) -> None:
    live, companion, _ = train(method, 3)
    other = selective.COMPANIONS[method]({n: nn.Parameter(torch.zeros_like(p)) for n, p in live.items()}, run(method))
    other.load({n: t.clone() for n, t in companion.state().items()})
    assert {n: t.tolist() for n, t in other.state().items()} == {n: t.tolist() for n, t in companion.state().items()}
    for one in (companion, other):
        for i, p in enumerate(one.parameters.values()):
            p.data = torch.full_like(p, 0.3 * i)
            p.grad = torch.full_like(p, 0.1)
        one.after_backward()
        one.after_step()
    for a, b in zip(companion.parameters.values(), other.parameters.values()):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("layers", "location", "expected"), [(None, None, {0, 1}), (1, None, {1}), (1, "gate_up", {1})])
def test_the_last_blocks_train(layers: int | None, location: str | None, expected: set[int]) -> None:
    given = Run(model="tiny-mlp", method="last_layers", precision="fp32", layers=layers, location=location)
    loaded = models.load(given)
    names = [n for n, p in methods.attach(loaded, given).named_parameters() if p.requires_grad]
    assert {int(n.split("layers.")[1].split(".")[0]) for n in names} == expected
    if location:
        assert {n.split(".")[-2] for n in names} == {"gate_proj", "up_proj"}


def test_memory_beyond_the_optimiser_is_at_most_three_copies() -> None:
    live = parameters()
    companion = selective.COMPANIONS["spider"](live, run("spider"))
    held = sum(t.numel() for t in companion.state().values())
    assert held <= 3 * sum(p.numel() for p in live.values())


def test_tailor_keeps_a_tenth_and_makes_up_for_the_rest() -> None:
    generator = torch.Generator().manual_seed(0)
    name, start = "m.layers.0.mlp.down_proj.weight", torch.randn(20, 200, generator=generator)
    live = {name: nn.Parameter(start.clone())}
    companion = selective.Tailor(live, run("tailor"))
    tuned = start + 0.3 * torch.randn(start.shape, generator=generator)
    mixing = torch.randn(200, 200, generator=generator)
    inputs = torch.randn(4000, 200, generator=generator) @ mixing
    companion.see(name, inputs)
    with torch.no_grad():
        live[name].copy_(tuned)
    companion.finish()

    def error(weight: torch.Tensor) -> float:
        return float(((weight - tuned) @ inputs.T).square().mean())

    assert error(live[name].detach()) < 0.8 * error(start), "the columns after a reverted one do not make up for it"
    last = (live[name].detach()[:, :1] - start[:, :1]).abs() < 1e-6
    assert last.float().mean() > 0.5, "most of the first column, which nothing makes up for, should be where it was"
