"""The connectors that this project makes beside LLaVA's: what turns an encoder's cells into tokens of the LLM."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

HEADS = 4  # of the resampler's attention


class Resampler(nn.Module):
    """Learned queries look at all cells: `tokens` ** 2 of them, whatever the number of cells (Bai et al. 2023, Qwen-VL, section 2.1).

    Queries and keys carry fixed two-dimensional positions, so that a query starts at its own place in the picture. Keys are a third as
    wide as what they give access to: at this size a query needs to find a place, not a meaning.
    """

    def __init__(self, features: int, width: int, *, cells: int, tokens: int) -> None:
        super().__init__()
        self.cells, self.tokens, inner = cells, tokens, _part(width, 3)
        self.queries = nn.Parameter(0.02 * torch.randn(tokens**2, inner))
        self.key, self.value, self.out = nn.Linear(features, inner), nn.Linear(features, width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, cells ** 2, features) -> (B, tokens ** 2, width)."""
        where = {"width": self.queries.shape[1], "device": x.device}
        queries = (self.queries + places(self.tokens, **where)).to(x.dtype).expand(len(x), -1, -1)
        keys = self.key(x) + places(self.cells, **where).to(x.dtype)
        parts = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (queries, keys, self.value(x)))
        with sdpa_kernel(SDPBackend.MATH):  # cuDNN's, which PyTorch may choose on a GPU, refuses keys narrower than values
            seen = F.scaled_dot_product_attention(*parts)
        return self.out(seen.transpose(1, 2).flatten(2))


class Merger(nn.Module):
    """Neighbouring cells, two by two, become one token: each narrowed, put side by side, then an MLP (as in Qwen2-VL and SmolVLM)."""

    def __init__(self, features: int, width: int, *, cells: int, tokens: int) -> None:
        super().__init__()
        if cells != 2 * tokens:
            raise ValueError(f"{cells} x {cells} cells do not merge two by two into {tokens} x {tokens} tokens (SHAPES in lib/peftlab/models/pocket.py)")
        self.tokens, inner = tokens, _part(4 * width, 9)
        self.reduce, self.norm = nn.Linear(features, inner), nn.LayerNorm(inner)
        self.linear_1, self.linear_2 = nn.Linear(4 * inner, width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, cells ** 2, features) -> (B, cells ** 2 / 4, width)."""
        x = self.norm(self.reduce(x)).unflatten(1, (self.tokens, 2, self.tokens, 2))  # rows and columns of tokens, of cells in each
        x = x.permute(0, 1, 3, 2, 4, 5).flatten(3).flatten(1, 2)
        return self.linear_2(F.gelu(self.linear_1(x)))


def places(side: int, *, width: int, device: torch.device) -> torch.Tensor:
    """(side ** 2, width) sines and cosines of the places of a square grid's cells, row by row; both axes run from 0 to 8 whatever `side`."""
    frequencies = 8.0 ** -torch.arange(0, 1, 4 / width, device=device)[: width // 4]
    angles = (torch.arange(side, device=device) + 0.5)[:, None] * (8 / side) * frequencies
    axis = torch.cat([angles.sin(), angles.cos()], dim=-1)  # (side, width / 2)
    rows, columns = axis[:, None].expand(-1, side, -1), axis[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


def _part(width: int, of: int) -> int:
    """About a part of `width`, a multiple of sixteen."""
    return max(16, width // of // 16 * 16)
