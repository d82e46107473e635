"""Fine-tuning the same model on the same examples with the trainers that people use: samples a second, final loss, peak memory.

Each measure is a process of its own, so that its peak memory is its own; they take turns.
"""

import json
import subprocess
import sys
from importlib.util import find_spec

from bench.pairs import Pair, in_turn

STEPS, BATCH, ROUNDS, RANK = 24, 16, 2, 16
PEERS = {"trainer": "transformers' Trainer + peft, bf16, grouped by length", "trl": "TRL's SFTTrainer, bf16, grouped by length"}


def measure() -> list[Pair]:
    """Samples a second of LoRA on the pocket base: ours, and each peer that is installed."""
    pairs = []
    for peer, what in PEERS.items():
        if peer == "trl" and find_spec("trl") is None:
            print("bench: trl is not installed (pip install trl==1.16.0), so it is left out")
            continue
        facts: dict[str, dict[str, float]] = {}

        def rate(who: str) -> float:
            facts[who] = json.loads(subprocess.run([sys.executable, "-m", "bench.peers", who], check=True, capture_output=True, text=True).stdout.splitlines()[-1])
            return facts[who]["rate"]

        ours, other = in_turn(lambda: rate("ours"), lambda: rate(peer), rounds=ROUNDS)
        note = ", ".join(f"{who}: loss {f['loss']:.3f}, {f['memory'] / 1e9:.1f} GB" for who, f in facts.items())
        pairs.append(Pair(f"LoRA, {STEPS} steps of {BATCH}", ours, other, what, unit="samples/s", note=note))
    return pairs


def _facts(who: str) -> dict[str, float]:
    """One training, measured: samples a second without loading, mean loss of the last third, peak memory in bytes."""
    from peftlab import datasets, provenance

    examples = list(datasets.load("icons_choice", "train", STEPS * BATCH))
    with provenance.Clock() as clock:
        seconds, losses = {"ours": _ours, "trainer": _trainer, "trl": _trl}[who](examples)
    last = losses[-len(losses) // 3 :]
    return {"rate": STEPS * BATCH / seconds, "loss": sum(last) / len(last), "memory": clock.peak_memory_bytes}


def _ours(examples: list) -> tuple[float, list[float]]:
    from peftlab import features, methods, models, training
    from peftlab.run import Run

    run = Run(method="lora", size=RANK, steps=STEPS, batch_size=BATCH, lr=1e-3)
    loaded = models.load(run)
    features.encode(loaded, [e.image for e in examples])  # once for all runs: see the bench of pictures
    log = training.finetune(methods.attach(loaded, run), loaded, examples, run, progress=False)
    return log.seconds, log.steps["loss"].tolist()


def _peft(bf16: bool = True) -> tuple:
    from peft import LoraConfig, get_peft_model

    from peftlab import methods, models
    from peftlab.run import Run

    loaded = models.load(Run(method="lora"))
    names = methods.targets(loaded.towers, (*loaded.towers.attn, *loaded.towers.mlp))
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
    max_steps=STEPS, per_device_train_batch_size=BATCH, learning_rate=1e-3, lr_scheduler_type="cosine", warmup_steps=1, weight_decay=0.0, bf16=True,
    train_sampling_strategy="group_by_length", length_column_name="length", logging_steps=1, save_strategy="no", report_to="none", use_cpu=True,
    remove_unused_columns=False, dataloader_pin_memory=False, disable_tqdm=True, seed=42,
)  # fmt: skip


def _trainer(examples: list) -> tuple[float, list[float]]:
    import tempfile

    from transformers import Trainer, TrainingArguments

    loaded, model = _peft()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(model=model, args=TrainingArguments(output_dir=folder, **HOW), train_dataset=_rows(loaded, examples), data_collator=_collate)
        seconds = trainer.train().metrics["train_runtime"]
    return seconds, [row["loss"] for row in trainer.state.log_history if "loss" in row]


def _trl(examples: list) -> tuple[float, list[float]]:
    import tempfile

    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    loaded, model = _peft()
    rows = [{k: v for k, v in row.items()} for row in _rows(loaded, examples)]
    data = Dataset.from_list([{k: v.tolist() if k == "pixel_values" else v for k, v in row.items()} for row in rows]).with_format("torch", columns=["pixel_values"], output_all_columns=True)
    with tempfile.TemporaryDirectory() as folder:
        args = SFTConfig(output_dir=folder, max_length=None, dataset_kwargs={"skip_prepare_dataset": True}, **HOW)
        trainer = SFTTrainer(model=model, args=args, train_dataset=data, data_collator=_collate, processing_class=loaded.processor.tokenizer)
        seconds = trainer.train().metrics["train_runtime"]
    return seconds, [row["loss"] for row in trainer.state.log_history if "loss" in row]


if __name__ == "__main__":
    print(json.dumps(_facts(sys.argv[1])))
