"""Fine-tuning: the only loop that steps an optimiser, and the file its result is kept in."""

import contextlib
import itertools
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from tqdm.auto import tqdm

from peftlab import checkpoints, features, guards, loading, methods, models
from peftlab.models import Loaded
from peftlab.records import Example
from peftlab.run import Run, adapter_file

WARMUP = 0.03  # share of the steps; Zhou et al. 2024
CLIP = 1.0  # gradient norm; their trainer's default
IGNORE = -100
ADAPTER = adapter_file()


@dataclass(frozen=True)
class StepLog:
    """What training did: a row per optimiser step, and its seconds (without encoding pictures)."""

    steps: pd.DataFrame  # step, loss (nats per answer token), lr, connector_lr, grad_norm, tokens, seconds
    seconds: float
    resumed: int | None = None  # the step it went on from, where an earlier process had been cut off


@dataclass(frozen=True)
class _Item:
    """A tokenised example, or several on one picture as turns: the whole sequence, and its labels (`IGNORE` off the answers)."""

    ids: list[int]
    labels: list[int]
    image: Image.Image
    types: dict[str, list[int]] = field(default_factory=dict)  # the family's other values a token


def finetune(model: nn.Module, loaded: Loaded, examples: Sequence[Example], run: Run, *, turns: int = 1, progress: bool = True, keep: Path | None = None) -> StepLog:
    """Train what `methods.attach` left trainable, for `run.steps` steps; AdamW without decay, cosine with warm-up, two rates.

    A batch is `run.batch_size` sequences; up to `turns` questions on one picture share a sequence, as turns of a conversation
    (Liu et al. 2024, "Improved Baselines with Visual Instruction Tuning", section 3.4), so a picture's tokens are paid for once.

    The loss is the mean over answer tokens of a batch; prompt, picture and pad positions carry none, and logits are computed
    at answer positions only. Order and dropout are functions of `run.seed`. With `keep`, a checkpoint is written there every
    `checkpoints.EVERY` seconds, and a training that finds one goes on from it, at the losses it would have had; beside it lies
    what was trained after each step of `run.kept`, for `save` to take along. Guards (see `guards`) stop a run whose trainable
    set, gradients or movement are not what the method says.
    """
    resolved = run.resolved()
    if run.kept and keep is None:
        raise ValueError(f"keep_every is {run.keep_every}, but there is no place to keep what was trained: give `keep`")
    guards.trainable(model, loaded, run)
    before = guards.snapshot(model)
    pictures = features.encode(loaded, [e.image for e in examples])
    items = tokenise(pictures, examples, turns=turns)
    optimiser = torch.optim.AdamW(_groups(model, loaded, run), betas=(0.9, 0.999), weight_decay=0.0, fused=True)  # fused: LoRA has 420 small tensors
    peak = [group["lr"] for group in optimiser.param_groups]
    trainable = [p for p in model.parameters() if p.requires_grad]
    companion = methods.companion(model, run)
    device = trainable[0].device
    rows: list[dict[str, float]] = []
    start = time.perf_counter()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), _checkpointing(loaded.model, run):
        torch.manual_seed(run.seed)
        model.train()
        done, rows = checkpoints.load(keep, model, optimiser, companion) if keep and keep.exists() else (0, rows)
        spent, saved = sum(row["seconds"] for row in rows), time.monotonic()
        batches = itertools.islice(_batches(items, run), done, None)
        for step in tqdm(range(done, run.steps), initial=done, total=run.steps, desc=run.method, disable=not progress, mininterval=1.0):
            clock = time.perf_counter()
            for group, rate in zip(optimiser.param_groups, peak, strict=True):
                group["lr"] = rate * _schedule(step, run.steps)
            batch = next(batches)
            with loading.autocast(run, device):
                loss = _loss(model, batch, pictures, device)
            if not torch.isfinite(loss):
                raise FloatingPointError(f"the loss is {loss.item()} at step {step} of {run.id}: lower its lr ({resolved['lr']})")
            (loss + companion.penalty()).backward()
            if step == 0:
                guards.after_first_step(model, methods.card(run.method).asleep)
            companion.after_backward()
            norm = nn.utils.clip_grad_norm_(trainable, CLIP)
            optimiser.step()
            companion.after_step()
            optimiser.zero_grad(set_to_none=True)
            rates = {group["name"]: group["lr"] for group in reversed(optimiser.param_groups)}
            rows.append(
                {
                    "step": step, "loss": loss.item(), "lr": rates.get("method", math.nan), "connector_lr": rates.get("connector", math.nan),
                    "grad_norm": norm.item(), "tokens": sum(len(i.ids) for i in batch), "seconds": time.perf_counter() - clock, **companion.facts(),
                }  # fmt: skip
            )
            if keep and step + 1 in run.kept:
                _write(model, _kept(keep, step + 1))
            if keep and time.monotonic() - saved >= checkpoints.EVERY:
                saved = _checkpoint(keep, step + 1, model, optimiser, companion, rows)
        guards.after_training(model, before)
        companion.finish()
        model.eval()
    return StepLog(pd.DataFrame(rows), spent + time.perf_counter() - start, done or None)


def _checkpoint(keep: Path, done: int, *held: Any) -> float:
    """Save a checkpoint, or say why there is none; returns when that was. Training goes on either way."""
    try:
        checkpoints.save(keep, done, *held)
    except (OSError, SafetensorError) as error:
        tqdm.write(f"no checkpoint after {done} steps: {keep} cannot be written ({error})")
    return time.monotonic()


def answer_loss(model: nn.Module, loaded: Loaded, examples: Sequence[Example], run: Run) -> float:
    """Mean nats per answer token over `examples`: what hyper-parameters are selected by. No gradient, no dropout."""
    if not examples:
        raise ValueError("answer_loss was given no examples")
    pictures = features.encode(loaded, [e.image for e in examples])
    items = sorted(tokenise(pictures, examples), key=lambda i: len(i.ids))
    device = next(model.parameters()).device
    total, tokens = 0.0, 0
    model.eval()
    for start in range(0, len(items), 32):
        batch = items[start : start + 32]
        with torch.inference_mode(), loading.autocast(run, device):
            count = sum(label != IGNORE for i in batch for label in i.labels)
            total += _loss(model, batch, pictures, device).item() * count
        tokens += count
    return total / tokens


def tokenise(pictures: features.Features, examples: Sequence[Example], *, turns: int = 1) -> list[_Item]:
    """A sequence per example: prompt, first answer and end-of-turn; or, with `turns`, of up to so many questions on one picture.

    Sequences are never truncated: that would cut pictures. Raises ValueError where the chat template rewrites earlier turns.
    """
    if turns < 1:
        raise ValueError(f"turns is {turns}; a sequence holds at least one question")
    loaded, talks = pictures.loaded, dict[str, list[list[Example]]]()
    end = loaded.end
    for example in examples:
        talk = talks.setdefault(features.picture_digest(example.image), [[]])
        if len(talk[-1]) == turns:
            talk.append([])
        talk[-1].append(example)
    items = []
    for talk in (t for per_picture in talks.values() for t in per_picture):
        ids, labels, before = list[int](), list[int](), list[tuple[str, str]]()
        for example in talk:
            types = pictures.tokens(example.image, example.question, before=before)
            prompt = types.pop("input_ids")
            if prompt[: len(ids)] != ids:
                raise ValueError(f"the chat template of {type(loaded.processor).__name__} does not keep earlier turns as they were: train with turns=1")
            answer = [*loaded.tokens(example.answers[0]), end]
            labels += [IGNORE] * (len(prompt) - len(labels)) + answer
            ids = prompt + answer
            types = {name: values + [loaded.answer_type if name == "token_type_ids" else 0] * len(answer) for name, values in types.items()}
            before.append((example.question, example.answers[0]))
        items.append(_Item(ids, labels, talk[0].image, types))
    return items


def save(model: nn.Module, folder: Path, run: Run | None = None, *, keep: Path | None = None) -> Path:
    """Write every trainable tensor, by name, to ``adapter.safetensors`` and check the file against the live tensors.

    With `run` and `keep`, the ones that `finetune` was given, what was kept of earlier steps goes to the folder too (`adapter_file`).
    Raises FileNotFoundError where one of those is gone.
    """
    file = _write(model, folder / ADAPTER)
    guards.saved(model, folder)
    for step in run.kept if run and keep else ():
        if not _kept(keep, step).exists():
            raise FileNotFoundError(f"{_kept(keep, step)} is gone: what was trained after {step} steps was kept there; delete {keep} and train again")
        shutil.move(_kept(keep, step), folder / adapter_file(step))
    return file


def _kept(keep: Path, step: int) -> Path:
    """Where a training keeps what it has trained after a step: beside its checkpoint, since a kill may take the stage's folder."""
    return keep.with_name(f"{keep.name}.at{step}")


def _write(model: nn.Module, file: Path) -> Path:
    """Write every trainable tensor, by name, whole or not at all."""
    part = file.with_name(f"{file.name}.part")
    save_file({n: p.detach().cpu().contiguous() for n, p in model.named_parameters() if p.requires_grad}, part)
    return part.replace(file)


def restore(model: nn.Module, folder: Path, name: str = ADAPTER) -> None:
    """Load what was trained (at the end, or the file `name` of an earlier step) into a model attached for the same run; names and shapes must agree exactly."""
    stored = load_file(folder / name)
    live = {n: p for n, p in model.named_parameters() if p.requires_grad}
    if stored.keys() != live.keys():
        odd = sorted(stored.keys() ^ live.keys())
        raise ValueError(f"{folder / name} is of another model or method: {len(odd)} tensors differ, such as {odd[0]}")
    with torch.no_grad():
        for key, tensor in stored.items():
            if tensor.shape != live[key].shape:
                raise ValueError(f"{folder / name}: {key} is {tuple(tensor.shape)}, the model has {tuple(live[key].shape)}")
            live[key].copy_(tensor)


def export(run: Run, tuned: Path, target: Path) -> Path:
    """Write what `run` tuned as a model of transformers' own, merged in fp32, with its processor; returns `target`.

    `tuned` is the folder of its finished stage. Raises ValueError where the method cannot be merged (`methods.merge`), the base was
    quantised, or `target` holds something.
    """
    if target.exists() and any(target.iterdir()):
        raise ValueError(f"{target} is not empty: give a new folder")
    full = replace(run, precision="fp32")
    methods.mergeable(full)
    loaded = models.load(full)
    model = methods.settled(loaded, full)
    restore(model, tuned)
    methods.merge(model, full).save_pretrained(target)
    loaded.processor.save_pretrained(target)
    return target


def _loss(model: nn.Module, batch: Sequence[_Item], pictures: features.Features, device: torch.device) -> torch.Tensor:
    rows = [{"input_ids": item.ids, **item.types} for item in batch]
    inputs = pictures.batch(rows, [item.image for item in batch])
    labels = torch.full_like(inputs["input_ids"], IGNORE)
    for row, item in enumerate(batch):
        labels[row, : len(item.labels)] = torch.tensor(item.labels)
    keep = (labels != IGNORE).any(0).nonzero().squeeze(1)  # positions where some row has an answer token
    targets = labels[:, keep]
    where = (targets != IGNORE).nonzero(as_tuple=True)  # found before anything is on a GPU, which would have to be waited for
    inputs, told = {name: tensor.to(device) for name, tensor in inputs.items()}, targets[where].to(device)
    with _only(model.get_output_embeddings(), where):
        logits = model(**inputs, logits_to_keep=(keep - 1).to(device), use_cache=False).logits  # (answer tokens, vocabulary)
    return F.cross_entropy(logits.float(), told)


@contextlib.contextmanager
def _only(head: nn.Module, where: tuple[torch.Tensor, torch.Tensor]) -> Iterator[None]:
    """Within, the output head is given these positions alone, (row, column), of what it would be given: answers of a batch seldom stand in the same columns."""
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][tuple(place.to(inputs[0].device) for place in where)],))
    try:
        yield
    finally:
        hook.remove()


def _groups(model: nn.Module, loaded: Loaded, run: Run) -> list[dict[str, Any]]:
    """The optimiser's groups: the method's parameters, by the factor of their rate, and the connector's."""
    resolved, found = run.resolved(), dict[tuple[str, float], list[nn.Parameter]]()
    for name, p in methods.named_parameters(model):
        if p.requires_grad:
            connector = loaded.towers.in_connector(name)
            group, factor = ("connector", 1.0) if connector else ("method", methods.rate(name, run))
            found.setdefault((group, factor), []).append(p)
    rates = {"method": resolved["lr"], "connector": resolved["connector_lr"]}
    return [{"name": name, "params": params, "lr": rates[name] * factor} for (name, factor), params in sorted(found.items(), key=lambda item: item[0])]


def _schedule(step: int, steps: int) -> float:
    warm = max(1, round(WARMUP * steps))
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _batches(items: Sequence[_Item], run: Run) -> Iterator[list[_Item]]:
    """Endless batches, every example once an epoch; of similar length within a window of 16 batches."""
    rng = np.random.default_rng(run.seed)
    size = min(run.batch_size, len(items))
    while True:
        order = rng.permutation(len(items))
        batches: list[list[_Item]] = []
        for start in range(0, len(order), 16 * size):
            window = sorted(order[start : start + 16 * size], key=lambda i: len(items[i].ids))
            batches += [[items[i] for i in window[b : b + size]] for b in range(0, len(window), size)]
        for i in rng.permutation(len(batches)):
            if len(batches[i]) == size:
                yield batches[i]


@contextlib.contextmanager
def _checkpointing(bare: nn.Module, run: Run) -> Iterator[None]:
    """Within, blocks in training mode keep their inputs alone and are computed again in the backward pass, if `run` says so."""
    if not run.checkpointing:
        yield
        return
    bare.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    try:
        yield
    finally:
        bare.gradient_checkpointing_disable()
