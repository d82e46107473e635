"""Answers: batched by length, greedy, deterministic."""

import contextlib
from collections.abc import Sequence

import torch
from torch import nn

from peftlab import features
from peftlab.models import Loaded
from peftlab.records import Example
from peftlab.run import Run

BATCH = 64


def answer(model: nn.Module, loaded: Loaded, examples: Sequence[Example], run: Run, *, max_new_tokens: int = 12) -> list[str]:
    """The model's greedy answer to each example, in their order, special tokens removed.

    Prompts are sorted by length and left-padded within a batch, which `generate` masks and numbers around for every method, the
    prefix's tokens included (a test holds this). Raises ValueError on no examples.
    """
    if not examples:
        raise ValueError("answer was given no examples")
    pictures = features.encode(loaded, [e.image for e in examples])
    tokenizer = loaded.processor.tokenizer
    prompts = [pictures.tokens(example.image, example.question) for example in examples]
    order = sorted(range(len(examples)), key=lambda place: len(prompts[place]["input_ids"]))
    ends = model.generation_config.eos_token_id
    ends = sorted({loaded.end, *(ends if isinstance(ends, list) else [] if ends is None else [ends])})
    device = next(model.parameters()).device
    autocast = torch.autocast(device.type, dtype=torch.bfloat16) if run.precision == "bf16" else contextlib.nullcontext()
    answers = [""] * len(examples)
    model.eval()
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        inputs = pictures.batch([prompts[p] for p in places], [examples[p].image for p in places], left=True)
        length = inputs["input_ids"].shape[1]
        with torch.no_grad(), autocast:
            out = model.generate(
                **{name: tensor.to(device) for name, tensor in inputs.items()},
                max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=ends, pad_token_id=loaded.pad,
            )  # fmt: skip
        for place, text in zip(places, tokenizer.batch_decode(out[:, length:], skip_special_tokens=True), strict=True):
            answers[place] = text.strip()
    return answers
