"""Selective tuning against forgetting: full fine-tuning of the last layers, held near the weights it started from.

SPIDER (Huang et al. 2025, "Learn from Downstream and Be Yourself in Multimodal Large Language Model Fine-Tuning",
https://arxiv.org/abs/2411.10928), its ablations and its rivals. All train the same set: the LLM's last `run.layers` blocks (all
of them where it is None) and, where it is tuned, the connector. They differ in what a `Companion` does beside the optimiser.

Of SPIDER a reader should know that its mask is applied at every step, so that an element whose mask is m < 1 settles at m / (1 - m)
times its step: what looks like a soft mask is a decay towards the start that depends on the number of steps, not of epochs.
"""

from collections.abc import Callable

import torch
from torch import nn

from peftlab import methods
from peftlab.models import Loaded
from peftlab.run import Run

SHARE = 0.5  # of the elements that the ablations of SPIDER train
TINY = 1e-12


def attach(loaded: Loaded, run: Run) -> nn.Module:
    """The bare model; `methods.attach` opens the last blocks."""
    return loaded.model


def own(name: str, loaded: Loaded, run: Run) -> bool:
    """Whether parameter `name` lies in one of the LLM's last `run.layers` blocks."""
    before, _ = loaded.towers.layer.split("{i}")
    block = name.removeprefix(before).partition(".")[0] if name.startswith(before) else ""
    blocks = loaded.model.config.get_text_config().num_hidden_layers
    placed = not run.location or any(f".{linear}." in name for linear in methods.linears(loaded.towers, run))
    return placed and block.isdigit() and int(block) >= blocks - (run.layers or blocks)


def companion(model: nn.Module, run: Run) -> "Anchored":
    """What `run.method` does beside the optimiser, over all that trains in `model`."""
    return anchored(run.method, {name: p for name, p in methods.named_parameters(model) if p.requires_grad}, model, run)


def anchored(name: str, parameters: dict[str, nn.Parameter], model: nn.Module, run: Run) -> "Anchored":
    """What the method `name` of this file does with `parameters` of `model`."""
    return Tailor(parameters, run, model) if name == "tailor" else COMPANIONS[name](parameters, run)


def score(x: torch.Tensor) -> torch.Tensor:
    """sigmoid((|x| - mean) / std) of a tensor's elements, in (0, 1), same shape; std is the unbiased one.

    A constant or single-element tensor has no spread: all its elements score one half, and zero where it is all zero.
    """
    size = x.abs()
    spread = size.std() if x.numel() > 1 else size.new_zeros(())
    if not spread > TINY:
        return torch.zeros_like(size) if not x.any() else torch.full_like(size, 0.5)
    return torch.sigmoid((size - size.mean()) / spread)


class Anchored(methods.Companion):
    """Keeps what it started from; `parameters` are what trains, by name. By itself it changes nothing."""

    def __init__(self, parameters: dict[str, nn.Parameter], run: Run) -> None:
        self.parameters, self.run = parameters, run
        self.start = {name: p.detach().clone() for name, p in parameters.items()}

    @torch.no_grad()
    def facts(self) -> dict[str, float]:
        """The displacement from the start, as the root mean square over all elements."""
        total = sum(float((p - self.start[n]).square().sum()) for n, p in self.parameters.items())
        return {"displacement": (total / sum(p.numel() for p in self.parameters.values())) ** 0.5}

    def state(self) -> dict[str, torch.Tensor]:
        return {f"start.{n}": t for n, t in self.start.items()}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        self.start = {n: state[f"start.{n}"].clone() for n in self.start}


class Masked(Anchored):
    """After every step, w <- w0 + M (w - w0) with a mask of the method, element by element."""

    def __init__(self, parameters: dict[str, nn.Parameter], run: Run) -> None:
        super().__init__(parameters, run)
        self.mean_mask = 1.0

    def mask(self, name: str) -> torch.Tensor:
        """M of a tensor, in [0, 1], its shape."""
        raise NotImplementedError

    @torch.no_grad()
    def after_step(self) -> None:
        kept, total = 0.0, 0
        for name, p in self.parameters.items():
            mask = self.mask(name)
            p.copy_(torch.lerp(self.start[name], p, mask))
            kept, total = kept + float(mask.sum()), total + p.numel()
        self.mean_mask = kept / total

    def facts(self) -> dict[str, float]:
        return {**super().facts(), "mean_mask": self.mean_mask}


class Gradients(Masked):
    """Sums the raw gradients of all steps, signs kept."""

    def __init__(self, parameters: dict[str, nn.Parameter], run: Run) -> None:
        super().__init__(parameters, run)
        self.summed = {name: torch.zeros_like(p) for name, p in parameters.items()}

    @torch.no_grad()
    def after_backward(self) -> None:
        for name, p in self.parameters.items():
            if p.grad is not None:
                self.summed[name] += p.grad

    def state(self) -> dict[str, torch.Tensor]:
        return {**super().state(), **{f"summed.{n}": t for n, t in self.summed.items()}}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        super().load(state)
        self.summed = {n: state[f"summed.{n}"].clone() for n in self.summed}


class Spider(Gradients):
    """M = min(1, R / mean of the non-zero R) with R = G / (G + I) where G > I and 0 elsewhere.

    G scores the summed gradients, I the weights at the start, each by the statistics of its tensor (equations of section 3).
    """

    def mask(self, name: str) -> torch.Tensor:
        gained, known = score(self.summed[name]), score(self.start[name])
        raw = torch.where(gained > known, gained / (gained + known), 0.0)
        chosen = raw > 0
        return (raw / raw[chosen].mean()).clamp(max=1.0) if chosen.any() else raw


class Hard(Gradients):
    """SPIDER's selection without its weights: M is 1 where G > I, else 0."""

    def mask(self, name: str) -> torch.Tensor:
        return (score(self.summed[name]) > score(self.start[name])).to(self.start[name])


class LargestGradient(Gradients):
    """M is 1 for the half of a tensor's elements with the largest summed gradients."""

    def mask(self, name: str) -> torch.Tensor:
        return _largest(self.summed[name].abs(), SHARE)


class SmallestMagnitude(Masked):
    """M is 1 for the half of a tensor's elements that were smallest at the start."""

    def mask(self, name: str) -> torch.Tensor:
        return _largest(-self.start[name].abs(), SHARE)


class RandomHalf(Masked):
    """M is 1 for a random half of the elements, drawn once from the run's seed."""

    def __init__(self, parameters: dict[str, nn.Parameter], run: Run) -> None:
        super().__init__(parameters, run)
        generator = torch.Generator().manual_seed(run.seed)
        self.drawn = {name: (torch.rand(p.shape, generator=generator) < SHARE).to(p.device) for name, p in parameters.items()}

    def mask(self, name: str) -> torch.Tensor:
        return self.drawn[name].to(self.start[name])


class HalfTuning(Anchored):
    """Half fine-tuning (Hui et al. 2024, https://arxiv.org/abs/2404.18466): at each step half of a block's matrices stay as they are.

    Per block: two of the four attention matrices, half of the MLP's and half of the norms (a coin for the odd one), re-drawn at every
    step. A matrix that stays gets no gradient, so the optimiser's moments do not see the step either.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], run: Run) -> None:
        super().__init__(parameters, run)
        self.generator = torch.Generator().manual_seed(run.seed)
        groups: dict[str, list[str]] = {}
        for name in parameters:
            parts = name.split(".")
            block = next((i for i, part in enumerate(parts) if part.isdigit()), 0)
            groups.setdefault(".".join(parts[: block + 1]) + ("norm" if "norm" in parts[-2] else parts[block + 1]), []).append(name)
        self.groups = list(groups.values())

    def after_backward(self) -> None:
        for names in self.groups:
            odd = int(torch.randint(2, (1,), generator=self.generator)) if len(names) % 2 else 0
            order = torch.randperm(len(names), generator=self.generator).tolist()
            for i in order[: len(names) // 2 + odd]:
                self.parameters[names[i]].grad = None

    def state(self) -> dict[str, torch.Tensor]:
        return {**super().state(), "generator": self.generator.get_state()}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        super().load(state)
        self.generator.set_state(state["generator"])


class TowardsStart(Anchored):
    """L2-SP (Li et al. 2018, https://arxiv.org/abs/1802.01483): the loss plus 1e-3 times the summed square of the displacement."""

    weight, power = 1e-3, 2

    def penalty(self) -> torch.Tensor | float:
        moved = (p - self.start[name] for name, p in self.parameters.items())
        return self.weight * torch.stack([d.square().sum() if self.power == 2 else d.abs().sum() for d in moved]).sum()


class TowardsStartL1(TowardsStart):
    """The loss plus 1e-6 times the summed absolute displacement, as SPIDER's authors use grafting's idea."""

    weight, power = 1e-6, 1


class Dare(Anchored):
    """DARE (Yu et al. 2024, https://arxiv.org/abs/2311.03099), after training: a share of the difference is dropped at random, the rest
    is divided by what is kept."""

    drop = 0.9

    @torch.no_grad()
    def finish(self) -> None:
        generator = torch.Generator().manual_seed(self.run.seed)
        for name, p in self.parameters.items():
            keep = (torch.rand(p.shape, generator=generator) >= self.drop).to(p)
            p.copy_(self.start[name] + keep * (p - self.start[name]) / (1 - self.drop))


class DareHalf(Dare):
    """DARE that drops a half."""

    drop = 0.5


class Wise(Anchored):
    """WiSE-FT (Wortsman et al. 2022, https://arxiv.org/abs/2109.01903), after training: half-way between start and end."""

    kept = 0.5

    @torch.no_grad()
    def finish(self) -> None:
        for name, p in self.parameters.items():
            p.copy_(torch.lerp(self.start[name], p, self.kept))


class Tailor(Anchored):
    """Model Tailor (Zhu et al. 2024, https://arxiv.org/abs/2402.12048), after training: a tenth of each matrix's difference stays.

    Kept is what is salient in its row, half by how far it moved and half by w^2 / [H^-1]_jj^2, both as z-scores within blocks of 128
    columns; H = 2 / n sum x x' over the inputs of the last `CALIBRATED` steps, damped by a hundredth of its mean diagonal. The rest goes
    back to the start, and the columns after it make up for that as in optimal brain surgery (the authors' code has the opposite sign,
    which would double the error instead). Vectors keep what they learned.
    """

    KEPT, COLUMNS, CALIBRATED, DAMPING = 0.1, 128, 16, 0.01

    def __init__(self, parameters: dict[str, nn.Parameter], run: Run, model: nn.Module | None = None) -> None:
        super().__init__(parameters, run)
        ids = {id(p): name for name, p in parameters.items() if p.ndim == 2}
        self.seen, self.counts, self.steps = dict[str, torch.Tensor](), dict[str, int](), 0
        for module in model.modules() if model is not None else ():
            if isinstance(module, nn.Linear) and id(module.weight) in ids:
                module.register_forward_pre_hook(self._watch(ids[id(module.weight)]))

    def _watch(self, name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def watch(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if module.training and self.steps >= self.run.steps - self.CALIBRATED:
                self.see(name, inputs[0])

        return watch

    @torch.no_grad()
    def see(self, name: str, x: torch.Tensor) -> None:
        """Add inputs (..., width) of a matrix to its H."""
        rows = x.detach().flatten(0, -2).float()
        with torch.autocast(x.device.type, enabled=False):
            self.seen[name] = self.seen.get(name, 0) + rows.T @ rows
        self.counts[name] = self.counts.get(name, 0) + len(rows)

    def after_step(self) -> None:
        self.steps += 1

    def state(self) -> dict[str, torch.Tensor]:
        counts = {f"count.{n}": torch.tensor(count) for n, count in self.counts.items()}
        return {**super().state(), "steps": torch.tensor(self.steps), **{f"seen.{n}": t for n, t in self.seen.items()}, **counts}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        super().load(state)
        self.steps = int(state["steps"])
        self.seen = {n.removeprefix("seen."): t.clone() for n, t in state.items() if n.startswith("seen.")}
        self.counts = {n.removeprefix("count."): int(t) for n, t in state.items() if n.startswith("count.")}

    @torch.no_grad()
    def finish(self) -> None:
        for name, gram in self.seen.items():
            hessian = 2 / self.counts[name] * gram
            hessian += self.DAMPING * hessian.diagonal().mean() * torch.eye(len(hessian), device=hessian.device)
            inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
            self.parameters[name].copy_(self._patched(self.parameters[name].float(), self.start[name].float(), inverse))

    def _patched(self, tuned: torch.Tensor, start: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
        """(out, in) tuned and start, and the upper Cholesky factor of H^-1, to what is kept of the difference."""
        w, moved = tuned.clone(), (tuned - start).abs()
        for first in range(0, w.shape[1], self.COLUMNS):
            block = slice(first, min(first + self.COLUMNS, w.shape[1]))
            salient = 0.5 * _z(moved[:, block]) + 0.5 * _z(w[:, block].square() / inverse.diagonal()[block].square())
            keep = _largest(salient, self.KEPT).bool()
            for j in range(block.start, block.stop):
                kept = torch.where(keep[:, j - first], w[:, j], start[:, j])
                error = (w[:, j] - kept) / inverse[j, j]
                w[:, j + 1 :] -= error[:, None] * inverse[j, j + 1 :]
                w[:, j] = kept
        return w


def _z(x: torch.Tensor) -> torch.Tensor:
    """Each row centred and in units of its standard deviation."""
    return (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True) + TINY)


COMPANIONS: dict[str, Callable[[dict[str, nn.Parameter], Run], Anchored]] = {
    "last_layers": Anchored,
    "spider": Spider,
    "spider_hard": Hard,
    "largest_gradient": LargestGradient,
    "smallest_magnitude": SmallestMagnitude,
    "random_half": RandomHalf,
    "half_tuning": HalfTuning,
    "l2_sp": TowardsStart,
    "l1_sp": TowardsStartL1,
    "dare_90": Dare,
    "dare_50": DareHalf,
    "wise": Wise,
    "tailor": Tailor,
}


def _largest(x: torch.Tensor, share: float) -> torch.Tensor:
    """1 for the `share` of elements with the largest x, 0 for the rest; ties by position."""
    mask = torch.zeros(x.numel(), device=x.device)
    mask[x.flatten().topk(max(1, round(share * x.numel()))).indices] = 1.0
    return mask.view(x.shape)
