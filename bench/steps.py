"""What a training step costs beside the least it could: forward and backward through the frozen model as transformers has it, and the products alone. On a GPU where there is one."""

import os
import time
from collections.abc import Callable, Iterator
from unittest import mock

import torch
from torch import nn

from bench.pairs import Pair, in_turn
from peftlab import datasets, features, lean, loading, methods, models, training
from peftlab.models import Loaded
from peftlab.run import Run

METHODS, BATCH, STEPS, ROUNDS = ("lora", "adapter", "ia3"), 16, 6, 3


def measure() -> list[Pair]:
    """Seconds a step on batches of the same questions: ours, the frozen model's, peft's LoRA as its documentation shows it; and the floor."""
    examples = list(datasets.load("icons_choice", "train", 320))
    frozen = models.load(Run())
    pictures = features.encode(frozen, [e.image for e in examples])
    items = training.tokenise(pictures, examples)
    batches = [batch for batch, _ in zip(training._batches(items, Run(batch_size=BATCH)), range(STEPS))]
    floor = _floor(frozen, batches)
    pairs = []
    for name in METHODS:
        run = Run(method=name, steps=STEPS, batch_size=BATCH)
        loaded = models.load(run)
        model = methods.attach(loaded, run)
        ours, peer = in_turn(stepping(model, pictures, batches), _through(frozen, pictures, batches), rounds=ROUNDS)
        pairs.append(Pair(f"a step of {name}", ours, peer, "forward and backward of the frozen model", note="aim: at least 0.71 (1.4 times the frozen)"))
        pairs.append(Pair(f"a step of {name}", ours, [floor] * ROUNDS, "the products alone at the measured rate", note="aim: at least 0.40 (2.5 times the floor)"))
        if name == "lora":
            if loading.products("bf16") == "fp32":
                pairs.append(_without_bf16(model, pictures, batches, run))
            plain = plain_lora(models.load(run), run)
            ours, peer = in_turn(stepping(model, pictures, batches), stepping(plain, pictures, batches, whole=True), rounds=ROUNDS)
            pairs.append(Pair("a step of lora", ours, peer, "peft's LoRA on the same linears, logits everywhere"))
    return pairs


def _without_bf16(model: nn.Module, pictures: features.Features, batches: list[list[training._Item]], run: Run) -> Pair:
    """Products in fp32, as here, beside products in bf16 on a processor that has no instructions for it."""
    with mock.patch.dict(os.environ, PEFTLAB_BF16="1"):
        forced = methods.attach(models.load(run), run)
    ours, peer = in_turn(stepping(model, pictures, batches[:2]), stepping(forced, pictures, batches[:2], bf16=True), rounds=2)
    return Pair("a step of lora, products in fp32", ours, peer, "in bf16, for which the processor has no instructions")


def stepping(model: nn.Module, pictures: features.Features, batches: list[list[training._Item]], *, whole: bool = False, bf16: bool | None = None) -> Callable[[], float]:
    """Measures the mean seconds of an optimiser's step over the batches; `whole` computes logits at every position, `bf16` products so (None: where it is worth it)."""
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=True)  # as ours trains, and transformers' Trainer
    device = next(model.parameters()).device
    fast = loading.products("bf16") == "bf16" if bf16 is None else bf16

    def seconds() -> float:
        model.train()
        start = clock(device)
        for batch in batches:
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast):
                loss = _everywhere(model, batch, pictures) if whole else training._loss(model, batch, pictures, device)
            loss.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        return (clock(device) - start) / len(batches)

    return seconds


def clock(device: torch.device) -> float:
    """Seconds, read when the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _everywhere(model: nn.Module, batch: list[training._Item], pictures: features.Features) -> torch.Tensor:
    device = next(model.parameters()).device
    inputs = pictures.batch([{"input_ids": item.ids} for item in batch], [item.image for item in batch])
    labels = torch.full_like(inputs["input_ids"], training.IGNORE)
    for row, item in enumerate(batch):
        labels[row, : len(item.labels)] = torch.tensor(item.labels)
    return model(**{name: tensor.to(device) for name, tensor in inputs.items()}, labels=labels.to(device), use_cache=False).loss


def _through(loaded: Loaded, pictures: features.Features, batches: list[list[training._Item]]) -> Callable[[], float]:
    """Measures forward and backward of the frozen model, transformers' own blocks: gradients reach the first block's input and nothing trains."""
    model, device = loaded.model, loaded.model.device
    lean.plain(model)
    model.get_input_embeddings().register_forward_hook(lambda _, __, out: out.detach().requires_grad_())

    def seconds() -> float:
        start = clock(device)
        for batch in batches:
            with loading.autocast(Run(), device):
                training._loss(model, batch, pictures, device).backward()
        return (clock(device) - start) / len(batches)

    return seconds


def plain_lora(loaded: Loaded, run: Run) -> nn.Module:
    """peft's LoRA on the linears that ours acts on, at our rank, as its documentation attaches it, to transformers' own blocks."""
    from peft import LoraConfig, get_peft_model

    lean.plain(loaded.model)
    size = run.resolved()["size"]
    names = methods.targets(loaded.towers, methods.linears(loaded.towers, run))
    return get_peft_model(loaded.model, LoraConfig(r=size, lora_alpha=2 * size, lora_dropout=0.05, target_modules=names))


def _floor(loaded: Loaded, batches: list[list[training._Item]]) -> float:
    """Seconds a step of the frozen blocks' products alone, forward and backward to the inputs."""
    return 2 * products(loaded, int(sum(len(batch) * max(len(item.ids) for item in batch) for batch in batches) / len(batches)))


def products(loaded: Loaded, tokens: int) -> float:
    """Seconds of the products of a forward pass of so many tokens through the blocks, at the rate of a product of such a shape."""
    blocks = loaded.towers.layer.partition(".{i}")[0]
    weights = sum(p.numel() for name, p in loaded.model.named_parameters() if name.startswith(blocks) and p.ndim == 2)
    kind = loading.DTYPES[loading.products("bf16")]
    a, b = (torch.randn(shape, device=loaded.model.device, dtype=kind) for shape in ((tokens, 576), (576, 1536)))
    return 2 * weights * tokens / max(_rates(a, b))


def _rates(a: torch.Tensor, b: torch.Tensor) -> Iterator[float]:
    """Operations a second of the product, a few times."""
    for _ in range(5):
        start = clock(a.device)
        for _ in range(50):
            a @ b
        yield 50 * 2 * a.shape[0] * a.shape[1] * b.shape[1] / (clock(a.device) - start)
