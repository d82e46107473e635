"""Answers: batched by length, greedy, deterministic; how likely each of a question's choices is; and the loss on plain text."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from peftlab import features, loading
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
    answers = [""] * len(examples)
    model.eval()
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        inputs = pictures.batch([prompts[p] for p in places], [examples[p].image for p in places], left=True)
        length = inputs["input_ids"].shape[1]
        with torch.no_grad(), loading.autocast(run, device):
            out = model.generate(
                **{name: tensor.to(device) for name, tensor in inputs.items()},
                max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=ends, pad_token_id=loaded.pad,
            )  # fmt: skip
        for place, text in zip(places, tokenizer.batch_decode(out[:, length:], skip_special_tokens=True), strict=True):
            answers[place] = text.strip()
    return answers


def choose(model: nn.Module, loaded: Loaded, examples: Sequence[Example], run: Run) -> list[list[float] | None]:
    """How likely the model takes each choice of a question to be: the mean log-probability, in nats, of the choice's tokens and the end of turn.

    None for a question without choices. Nothing is generated, so that an answer that is known is told from one that is well put. The prompt
    is read once for all its choices; prompts of one length are read together, which needs no padding before a choice.
    """
    if not any(e.choices for e in examples):
        return [None] * len(examples)
    pictures = features.encode(loaded, [e.image for e in examples])
    tokenizer, device = loaded.processor.tokenizer, next(model.parameters()).device
    prompts = {place: pictures.tokens(e.image, e.question) for place, e in enumerate(examples) if e.choices}
    found: list[list[float] | None] = [None] * len(examples)
    model.eval()
    order = sorted(prompts, key=lambda place: len(prompts[place]["input_ids"]))
    for _, same in groupby(order, key=lambda place: len(prompts[place]["input_ids"])):
        places = list(same)
        for start in range(0, len(places), CHOSEN):
            part = places[start : start + CHOSEN]
            options = [[[*tokenizer(choice, add_special_tokens=False)["input_ids"], loaded.end] for choice in examples[p].choices] for p in part]
            inputs = pictures.batch([prompts[p] for p in part], [examples[p].image for p in part])
            with torch.no_grad(), loading.autocast(run, device):
                for place, values in zip(part, _likelihoods(model, {n: t.to(device) for n, t in inputs.items()}, options), strict=True):
                    found[place] = values
    return found


CHOSEN = 16  # prompts read at once for their choices


def _likelihoods(model: nn.Module, inputs: dict[str, torch.Tensor], options: list[list[list[int]]]) -> list[list[float]]:
    """Mean log-probability of every option's tokens after its prompt; `inputs` are prompts of one length, `options` some token lists for each."""
    read = model(**inputs, use_cache=True, logits_to_keep=1)
    owner = torch.tensor([row for row, several in enumerate(options) for _ in several], device=inputs["input_ids"].device)
    flat = [ids for several in options for ids in several]
    longest = max(map(len, flat))
    ids, there = torch.zeros(len(flat), longest, dtype=torch.int64), torch.zeros(len(flat), longest, dtype=torch.bool)
    for row, tokens in enumerate(flat):
        ids[row, : len(tokens)], there[row, : len(tokens)] = torch.tensor(tokens), True
    ids, there = ids.to(owner.device), there.to(owner.device)
    cache = read.past_key_values
    cache.batch_select_indices(owner)
    logits = read.logits[owner, -1:].float()  # (options, 1, vocabulary)
    if longest > 1:
        before = torch.ones(len(flat), cache.get_seq_length(), dtype=torch.int64, device=owner.device)  # a method's own tokens are in the cache
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
        ids = loaded.processor.tokenizer(text, return_tensors="pt")["input_ids"].to(device)  # (1, tokens)
        with torch.no_grad(), loading.autocast(run, device):
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        nats = F.cross_entropy(logits[0, :-1].float(), ids[0, 1:], reduction="sum")
        found.append({"passage": name, "nats": nats.item(), "tokens": ids.shape[1] - 1})
    return found
