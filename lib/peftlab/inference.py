"""Answers: batched by exact length, greedy, deterministic."""

import contextlib
from collections import defaultdict
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

    Prompts of one batch have the same number of tokens, so no batch holds a pad: a padded prefix would change answers
    (TRAPS 8). Raises ValueError on no examples.
    """
    if not examples:
        raise ValueError("answer was given no examples")
    pictures = features.encode(loaded, [e.image for e in examples])
    tokenizer = loaded.processor.tokenizer
    by_length: dict[int, list[tuple[int, list[int]]]] = defaultdict(list)
    for place, example in enumerate(examples):
        ids = loaded.prompt(example.question, image_tokens=pictures.image_tokens)
        by_length[len(ids)].append((place, ids))
    device = next(model.parameters()).device
    autocast = torch.autocast(device.type, dtype=torch.bfloat16) if run.precision == "bf16" else contextlib.nullcontext()
    answers = [""] * len(examples)
    model.eval()
    for length, group in sorted(by_length.items()):
        for start in range(0, len(group), BATCH):
            places, ids = zip(*group[start : start + BATCH], strict=True)
            tokens = torch.tensor(ids, device=device)
            values = pictures.of([examples[p].image for p in places]).to(device)
            with torch.no_grad(), autocast:
                out = model.generate(
                    input_ids=tokens, attention_mask=torch.ones_like(tokens), pixel_values=values,
                    max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id,
                )  # fmt: skip
            for place, text in zip(places, tokenizer.batch_decode(out[:, length:], skip_special_tokens=True), strict=True):
                answers[place] = text.strip()
    return answers
