"""Answering questions in batches, beside asking `generate` one by one."""

import time

import torch

from bench.pairs import Pair, in_turn
from peftlab import datasets, inference, loading, methods, models
from peftlab.run import Run

QUESTIONS, ALONE, ROUNDS = 500, 50, 3


def measure() -> list[Pair]:
    """Seconds a question, and the share of answers that are the same to the letter; alone in bf16 under autocast as in batches."""
    run = Run(method="none")
    loaded = models.load(run)
    model, device = methods.attach(loaded, run), loaded.model.device
    asked = list(datasets.load("icons_choice", "test", QUESTIONS))
    said: dict[str, list[str]] = {}

    def batched() -> float:
        start = time.perf_counter()
        said["batched"] = inference.answer(model, loaded, asked, run)
        return (time.perf_counter() - start) / len(asked)

    def alone() -> float:
        start, answers = time.perf_counter(), []
        for example in asked[:ALONE]:
            inputs = {name: tensor.to(device) for name, tensor in loaded.inputs(example.image, example.question).items()}
            with torch.no_grad(), loading.autocast(run, device), inference.fused(loaded):  # transformers' own choice
                out = model.generate(**inputs, max_new_tokens=12, do_sample=False, eos_token_id=loaded.end, pad_token_id=loaded.pad)
            answers.append(loaded.processor.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
        said["alone"] = answers
        return (time.perf_counter() - start) / ALONE

    batched()  # encodes the pictures for the first time
    ours, peer = in_turn(batched, alone, rounds=ROUNDS)
    same = sum(a == b for a, b in zip(said["batched"], said["alone"]))
    return [Pair(f"an answer, of {QUESTIONS}", ours, peer, "generate, one by one", note=f"{same} of {ALONE} answers the same")]
