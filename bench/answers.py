"""Answering questions in batches, beside asking `generate` one by one."""

import statistics
import time

import torch

from bench.pairs import Pair, in_turn
from bench.steps import products
from peftlab import datasets, features, inference, loading, methods, models
from peftlab.run import Run

SETS = "icons_choice", "scenes"  # a picture a question, and pictures that are asked about several times
QUESTIONS, ALONE, ROUNDS = 500, 50, 3


def measure() -> list[Pair]:
    """Seconds a question, and the share of answers that are the same to the letter; alone in bf16 under autocast as in batches.

    Beside it, of the set with a picture a question, the products of reading the prompts alone: less than these no batch takes.
    """
    run = Run(method="none")
    loaded = models.load(run)
    model, device = methods.attach(loaded, run), loaded.model.device

    def pairs(name: str) -> list[Pair]:
        asked, said = list(datasets.load(name, "test", QUESTIONS)), {}
        step = len(asked) // ALONE

        def batched() -> float:
            start = time.perf_counter()
            said["batched"] = inference.answer(model, loaded, asked, run)
            return (time.perf_counter() - start) / len(asked)

        def alone() -> float:
            start, answers = time.perf_counter(), []
            for example in asked[::step]:
                inputs = {name: tensor.to(device) for name, tensor in loaded.inputs(example.image, example.question).items()}
                with torch.no_grad(), loading.autocast(run, device), inference.fused(loaded):  # transformers' own choice
                    out = model.generate(**inputs, max_new_tokens=12, do_sample=False, eos_token_id=loaded.end, pad_token_id=loaded.pad)
                answers.append(loaded.processor.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
            said["alone"] = answers
            return (time.perf_counter() - start) / len(answers)

        batched()  # encodes the pictures for the first time
        ours, peer = in_turn(batched, alone, rounds=ROUNDS)
        pictures = len({features.picture_digest(example.image) for example in asked})
        same = sum(a == b for a, b in zip(said["batched"][::step], said["alone"], strict=True))
        what = f"an answer, of {len(asked)} on {pictures} pictures ({name})"
        found = [Pair(what, ours, peer, "generate, one by one", note=f"{same} of {len(said['alone'])} answers the same")]
        if pictures == len(asked):
            length = statistics.mean(loaded.inputs(example.image, example.question)["input_ids"].shape[1] for example in asked[::step])
            floor = products(loaded, round(inference.BATCH * length)) / inference.BATCH
            found.append(Pair(what, ours, [floor] * ROUNDS, "the products of its prompt alone, at the measured rate", note="no batch takes less"))
        return found

    return [pair for name in SETS for pair in pairs(name)]
