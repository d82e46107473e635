"""Answers: batched by length, greedy, deterministic; how likely each of a question's choices is; and the loss on plain text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Cache

from peftlab import features, loading
from peftlab.models import Loaded
from peftlab.records import Example
from peftlab.run import Run

BATCH = 64
CHOSEN = 16  # prompts read at once where their choices are wanted too: a cache for every choice of each


def answer(model: nn.Module, loaded: Loaded, examples: Sequence[Example], run: Run, *, max_new_tokens: int = 12) -> list[str]:
    """The model's greedy answer to each example, in their order, special tokens removed.

    Prompts are sorted by length and left-padded within a batch, which `generate` masks and numbers around for every method, the
    prefix's tokens included (a test holds this). Raises ValueError on no examples.
    """
    return answer_and_choose(model, loaded, [replace(e, choices=()) for e in examples], run, max_new_tokens=max_new_tokens)[0]


def answer_and_choose(
    model: nn.Module, loaded: Loaded, examples: Sequence[Example], run: Run, *, max_new_tokens: int = 12
) -> tuple[list[str], list[list[float] | None]]:
    """The greedy answer to each example, as `answer` gives it, and how likely the model takes each of its choices to be.

    A likelihood is the mean log-probability, in nats, of the choice's tokens and the end of turn; None in place of the list for a question
    without choices. Nothing is generated for it, so that an answer that is known is told from one that is well put. A prompt is read once
    for both; prompts of one length are read together, which needs no padding before a choice. Raises ValueError on no examples.
    """
    if not examples:
        raise ValueError("answer was given no examples")
    pictures = features.encode(loaded, [e.image for e in examples])
    prompts = [pictures.tokens(example.image, example.question) for example in examples]
    answers, likelihoods = [""] * len(examples), [None] * len(examples)
    model.eval()
    for places in _batches(examples, [len(prompt["input_ids"]) for prompt in prompts]):
        inputs = pictures.batch([prompts[p] for p in places], [examples[p].image for p in places], left=True)
        found = _read(model, loaded, inputs, [examples[p].choices for p in places], run, max_new_tokens)
        for place, text, values in zip(places, *found, strict=True):
            answers[place], likelihoods[place] = text, values
    return answers, likelihoods


def _batches(examples: Sequence[Example], lengths: list[int]) -> Iterator[list[int]]:
    """The places of examples that are read together: without choices of similar length, with choices of the same."""
    order = sorted(range(len(examples)), key=lengths.__getitem__)
    several = [(BATCH, [p for p in order if not examples[p].choices])]
    several += [(CHOSEN, list(same)) for _, same in groupby((p for p in order if examples[p].choices), key=lengths.__getitem__)]
    for size, places in several:
        yield from (places[start : start + size] for start in range(0, len(places), size))


def _read(
    model: nn.Module, loaded: Loaded, inputs: dict[str, torch.Tensor], choices: list[tuple[str, ...]], run: Run, max_new_tokens: int
) -> tuple[list[str], list[list[float] | None]]:
    """Answers to a batch of prompts and the likelihoods of their choices, which all of them have or none."""
    tokenizer, device, length = loaded.processor.tokenizer, next(model.parameters()).device, inputs["input_ids"].shape[1]
    ends = model.generation_config.eos_token_id
    ends = sorted({loaded.end, *(ends if isinstance(ends, list) else [] if ends is None else [ends])})
    with torch.no_grad(), loading.autocast(run, device):
        out = model.generate(
            **{name: tensor.to(device) for name, tensor in inputs.items()},
            max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=ends, pad_token_id=loaded.pad, return_dict_in_generate=True, output_logits=any(choices),
        )  # fmt: skip
        texts = [text.strip() for text in tokenizer.batch_decode(out.sequences[:, length:], skip_special_tokens=True)]
        if not any(choices):
            return texts, [None] * len(texts)
        out.past_key_values.crop(length + 1 - out.sequences.shape[1])  # the prompt, and a method's own tokens before it, stay
        options = [[[*loaded.tokens(choice), loaded.end] for choice in several] for several in choices]
        return texts, _likelihoods(model, out.past_key_values, out.logits[0], options)


def _likelihoods(model: nn.Module, cache: Cache, following: torch.Tensor, options: list[list[list[int]]]) -> list[list[float]]:
    """Mean log-probability of every option's tokens after its prompt, which `cache` holds; `options` are token lists for each prompt.

    ``following`` (prompts, vocabulary) are the logits of the first token after the prompt.
    """
    owner = torch.tensor([row for row, several in enumerate(options) for _ in several], device=following.device)
    flat = [ids for several in options for ids in several]
    longest = max(map(len, flat))
    ids, there = torch.zeros(len(flat), longest, dtype=torch.int64), torch.zeros(len(flat), longest, dtype=torch.bool)
    for row, tokens in enumerate(flat):
        ids[row, : len(tokens)], there[row, : len(tokens)] = torch.tensor(tokens), True
    ids, there = ids.to(owner.device), there.to(owner.device)
    cache.batch_select_indices(owner)
    logits = following[owner, None].float()  # (options, 1, vocabulary)
    if longest > 1:
        before = torch.ones(len(flat), cache.get_seq_length(), dtype=torch.int64, device=owner.device)
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        places = _places(inner, owner, before.shape[1], longest - 1)
        more = inner(input_ids=ids[:, :-1], attention_mask=torch.cat([before, there[:, :-1].long()], 1), past_key_values=cache, use_cache=True, **places)
        logits = torch.cat([logits, more.logits.float()], 1)  # (options, longest, vocabulary)
    nats = F.cross_entropy(logits.transpose(1, 2), ids, reduction="none") * there
    means = iter((-nats.sum(1) / there.sum(1)).tolist())
    return [[next(means) for _ in several] for several in options]


def _places(model: nn.Module, owner: torch.Tensor, start: int, count: int) -> dict[str, torch.Tensor]:
    """The positions of `count` tokens after `start`, for families that number a picture's tokens in two dimensions and so fewer positions than tokens."""
    deltas = [d for module in model.modules() if (d := getattr(module, "rope_deltas", None)) is not None]
    if not deltas:
        return {}
    places = start + deltas[0][owner].reshape(-1, 1) + torch.arange(count, device=owner.device)  # (options, count)
    return {"position_ids": places.expand(3, -1, -1)}


def text_loss(model: nn.Module, loaded: Loaded, passages: Mapping[str, str], run: Run) -> list[dict[str, Any]]:
    """The loss of plain text without a picture or a question: of every passage its name, nats, and tokens (the first is not predicted).

    Passages are read one at a time, so that none depends on another.
    """
    device, found = next(model.parameters()).device, []
    model.eval()
    for name, text in passages.items():
        ids = loaded.processor.tokenizer(loaded.plain(text), return_tensors="pt")["input_ids"].to(device)  # (1, tokens)
        with torch.no_grad(), loading.autocast(run, device):
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        nats = F.cross_entropy(logits[0, :-1].float(), ids[0, 1:], reduction="sum")
        found.append({"passage": name, "nats": nats.item(), "tokens": ids.shape[1] - 1})
    return found
