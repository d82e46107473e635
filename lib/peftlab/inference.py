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
    prompts = [loaded.prompt(example.question, image_tokens=pictures.image_tokens) for example in examples]
    order = sorted(range(len(examples)), key=lambda place: len(prompts[place]))
    device = next(model.parameters()).device
    autocast = torch.autocast(device.type, dtype=torch.bfloat16) if run.precision == "bf16" else contextlib.nullcontext()
    answers = [""] * len(examples)
    model.eval()
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        length = len(prompts[places[-1]])
        tokens = torch.full((len(places), length), tokenizer.pad_token_id)
        mask = torch.zeros_like(tokens)
        for row, place in enumerate(places):
            tokens[row, length - len(prompts[place]) :] = torch.tensor(prompts[place])
            mask[row, length - len(prompts[place]) :] = 1
        with torch.no_grad(), autocast:
            out = model.generate(
                input_ids=tokens.to(device), attention_mask=mask.to(device), pixel_values=pictures.of([examples[p].image for p in places]).to(device),
                max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip
        for place, text in zip(places, tokenizer.batch_decode(out[:, length:], skip_special_tokens=True), strict=True):
            answers[place] = text.strip()
    return answers
