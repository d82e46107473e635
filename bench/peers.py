"""Fine-tuning the same model on the same examples with the trainers that people use: samples a second, loss on validation data, peak memory.

Each measure is a process of its own, so that its peak memory is its own; they take turns. Every clock starts where the model is loaded and the
adapters are attached, with questions and decoded pictures in memory, and stops after the last step: it holds tokens, pixels, the vision encoder and the steps.
Ours is taken twice: with nothing in the cache of pictures, as a first run finds it, and with all of them there, as every later run on these
pictures does. The trainers keep no features, so that their every run is a first one. Losses are of the tuned models on the same questions, after the
clock has stopped: those of the last steps are of batches in each one's own order. Every round has a seed of its own, of adapters, order and
dropout, and losses are compared by their means: one trainer's differ by 5 % from seed to seed. Products are in bf16 for all where the processor has instructions
for it, else in fp32 for all.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from bench.pairs import Pair, in_turn
from peftlab import loading, provenance

CUDA = bool(provenance.gpus())
STEPS, BATCH, RANK, HELD_OUT = 24, 16, 16, 128
SEEDS = 42, 43, 44  # of the rounds
BF16 = loading.products("bf16") == "bf16"
PEERS = {name: f"{what}, {'bf16' if BF16 else 'fp32'}, grouped by length" for name, what in {"trainer": "transformers' Trainer + peft", "trl": "TRL's SFTTrainer"}.items()}


FIRST, LATER = "ours, a first run", "ours, a later run"  # on the same pictures


def measure() -> list[Pair]:
    """Samples a second of LoRA on the pocket base: ours, as a first run on these pictures and as a later one, and each peer that is installed."""
    peers = dict(PEERS)
    if find_spec("trl") is None:
        print("bench: trl is not installed (pip install trl==1.16.0), so it is left out")
        del peers["trl"]
    all_of_them = (FIRST, LATER, *peers)
    found = dict(zip(all_of_them, in_turn(*map(_every_seed, all_of_them), rounds=len(SEEDS)), strict=True))
    rates = {who: [one["rate"] for one in several] for who, several in found.items()}
    pairs = []
    for peer, what in peers.items():
        note = ", ".join(f"{who}: {_loss([one['loss'] for one in found[who]])}, {max(one['memory'] for one in found[who]) / 1e9:.1f} GB" for who in (FIRST, LATER, peer))
        doing = f"LoRA, {STEPS} steps of {BATCH}, from pictures to the tuned model"
        pairs.append(Pair(f"{doing}: a first run, which encodes as the peer does", rates[FIRST], rates[peer], what, unit="samples/s", note=note))
        pairs.append(Pair(f"{doing}: a later run, its pictures encoded before", rates[LATER], rates[peer], f"{what}, which encodes in every run", unit="samples/s"))
    return pairs


def _every_seed(who: str) -> Callable[[], dict[str, float]]:
    """A measure of `who` that takes the next seed each time."""
    seeds = iter(SEEDS)
    return lambda: _told(who, next(seeds))


def _told(who: str, seed: int) -> dict[str, float]:
    """What a process of its own measured."""
    return json.loads(subprocess.run([sys.executable, "-m", "bench.peers", who, str(seed)], check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def _loss(losses: list[float]) -> str:
    """Their mean, with the least and the most."""
    return f"loss {statistics.mean(losses):.3f} [{min(losses):.3f}, {max(losses):.3f}]"


def _facts(who: str, seed: int) -> dict[str, float]:
    """One training, measured: samples a second without loading, loss on validation data in nats a token, peak memory in bytes."""
    from peftlab import datasets, training
    from peftlab.run import Run

    examples, held_out = (list(datasets.load("icons_choice", split, size)) for split, size in (("train", STEPS * BATCH), ("validation", HELD_OUT)))
    for example in examples:
        example.image.load()
    with tempfile.TemporaryDirectory() as empty, _own_features(Path(empty)):
        with provenance.Clock() as clock:
            seconds, loaded, model = {FIRST: _ours, LATER: partial(_ours, encoded=True), "trainer": _trainer, "trl": _trl}[who](examples, seed)
        loss = training.answer_loss(model, loaded, held_out, Run())
    return {"rate": STEPS * BATCH / seconds, "loss": loss, "memory": clock.peak_device_bytes or clock.peak_memory_bytes}


@contextlib.contextmanager
def _own_features(folder: Path) -> Iterator[None]:
    """A cache in `folder` that holds all that the real one does but features of pictures."""
    from peftlab import paths

    for there in paths.cache().iterdir():
        if there.name != "features":
            (folder / there.name).symlink_to(there)
    before = os.environ.get("PEFTLAB_CACHE")
    os.environ["PEFTLAB_CACHE"] = str(folder)
    yield
    os.environ.pop("PEFTLAB_CACHE") if before is None else os.environ.update(PEFTLAB_CACHE=before)


def _ours(examples: list, seed: int, *, encoded: bool = False) -> tuple:
    from peftlab import features, methods, models, training
    from peftlab.run import Run

    run = Run(method="lora", size=RANK, steps=STEPS, batch_size=BATCH, lr=1e-3, seed=seed)
    loaded = models.load(run)
    if encoded:
        features.encode(loaded, [example.image for example in examples])
    model = methods.attach(loaded, run)
    start = time.perf_counter()
    training.finetune(model, loaded, examples, run, progress=False)
    return time.perf_counter() - start, loaded, model


def _peft(seed: int) -> tuple:
    import torch
    from peft import LoraConfig, get_peft_model

    from peftlab import lean, methods, models
    from peftlab.run import Run

    loaded = models.load(Run(method="lora"))
    lean.plain(loaded.model)
    names = methods.targets(loaded.towers, (*loaded.towers.attn, *loaded.towers.mlp))
    torch.manual_seed(seed)
    model = get_peft_model(loaded.model, LoraConfig(r=RANK, lora_alpha=2 * RANK, lora_dropout=0.05, target_modules=names))
    return loaded, model


def _rows(loaded, examples: list) -> list[dict]:
    rows = []
    for example in examples:
        made = loaded.inputs(example.image, example.question)
        answer = [*loaded.tokens(example.answers[0]), loaded.end]
        prompt = made["input_ids"][0].tolist()
        rows.append({"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer, "pixel_values": made["pixel_values"][0], "length": len(prompt) + len(answer)})
    return rows


def _collate(rows: list[dict]) -> dict:
    import torch

    longest = max(len(row["input_ids"]) for row in rows)
    pad = {"input_ids": 2, "labels": -100}
    made = {name: torch.tensor([row[name] + [value] * (longest - len(row[name])) for row in rows]) for name, value in pad.items()}
    made["attention_mask"] = torch.tensor([[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows])
    return {**made, "pixel_values": torch.stack([row["pixel_values"] for row in rows])}


HOW = dict(
    max_steps=STEPS, per_device_train_batch_size=BATCH, learning_rate=1e-3, lr_scheduler_type="cosine", warmup_steps=1, weight_decay=0.0, bf16=BF16,
    train_sampling_strategy="group_by_length", length_column_name="length", logging_steps=1, save_strategy="no", report_to="none", use_cpu=not CUDA,
    remove_unused_columns=False, dataloader_pin_memory=False, disable_tqdm=True,
)  # fmt: skip


def _trainer(examples: list, seed: int) -> tuple:
    from transformers import Trainer, TrainingArguments

    loaded, model = _peft(seed)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        trainer = Trainer(model=model, args=TrainingArguments(output_dir=folder, seed=seed, **HOW), train_dataset=_rows(loaded, examples), data_collator=_collate)
        trainer.train()
        seconds = time.perf_counter() - start
    return seconds, loaded, model


def _trl(examples: list, seed: int) -> tuple:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    loaded, model = _peft(seed)
    start = time.perf_counter()
    rows = [{k: v for k, v in row.items()} for row in _rows(loaded, examples)]
    data = Dataset.from_list([{k: v.tolist() if k == "pixel_values" else v for k, v in row.items()} for row in rows]).with_format("torch", columns=["pixel_values"], output_all_columns=True)
    with tempfile.TemporaryDirectory() as folder:
        args = SFTConfig(output_dir=folder, max_length=None, dataset_kwargs={"skip_prepare_dataset": True}, seed=seed, **HOW)
        trainer = SFTTrainer(model=model, args=args, train_dataset=data, data_collator=_collate, processing_class=loaded.processor.tokenizer)
        trainer.train()
        seconds = time.perf_counter() - start
    return seconds, loaded, model


if __name__ == "__main__":
    print(json.dumps(_facts(sys.argv[1], int(sys.argv[2]))))
