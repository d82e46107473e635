"""Dropout: independent drops at the stated rate, unbiased, the same mask backwards, seeded, none in eval mode."""

import pytest
import torch

from peftlab.dropout import SparseDropout


def test_drops_at_its_rate_and_scales_the_rest() -> None:
    torch.manual_seed(0)
    y = SparseDropout(0.05)(torch.ones(1000, 1000))
    assert y.unique().tolist() == [0.0, pytest.approx(1 / 0.95)]
    assert abs((y == 0).double().mean().item() - 0.05) < 5 * (0.05 * 0.95 / 1e6) ** 0.5


def test_drops_are_independent() -> None:
    """The number dropped varies as a binomial count does, and two cells are dropped together at rate p squared."""
    torch.manual_seed(0)
    drop = SparseDropout(0.3)
    zeros = torch.stack([drop(torch.ones(50)) == 0 for _ in range(4000)]).double()
    assert zeros.sum(1).var().item() == pytest.approx(50 * 0.3 * 0.7, rel=0.1)
    assert (zeros[:, 0] * zeros[:, 1]).mean().item() == pytest.approx(0.09, abs=0.02)


def test_gradient_is_the_same_mask() -> None:
    x = torch.randn(64, 32, requires_grad=True)
    y = SparseDropout(0.2)(x)
    y.sum().backward()
    assert torch.equal(x.grad == 0, y == 0)
    torch.testing.assert_close(y.detach(), x.detach() * x.grad)


def test_seed_decides_and_shape_and_dtype_stay() -> None:
    drop, x = SparseDropout(0.2), torch.randn(3, 5, 7).bfloat16()
    outs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outs.append(drop(x))
    assert torch.equal(outs[0], outs[1]) and not torch.equal(outs[0], outs[2])
    assert outs[0].shape == x.shape and outs[0].dtype == x.dtype
    assert drop(x[:, :0]).shape == (3, 0, 7)


def test_input_is_untouched_and_eval_mode_is_the_identity() -> None:
    x = torch.randn(100, 10).t()  # not contiguous
    copy = x.clone()
    y = SparseDropout(0.5)(x)
    assert torch.equal(x, copy) and y.shape == x.shape
    assert torch.equal(y[y != 0], (x * 2)[y != 0])
    assert torch.equal(SparseDropout(0.5).eval()(x), x)
    assert torch.equal(SparseDropout(0.0)(x), x) and not SparseDropout(1.0)(x).any()
