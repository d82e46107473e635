"""Answers: batched by length, greedy, deterministic; how likely each of a question's options is; and the loss on plain text."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
CHOSEN = 16  # prompts read at once where their options are weighed too: a cache for every option of each


def answer(model: nn.Module, loaded: Loaded, examples: Sequence[Example], run: Run, *, max_new_tokens: int = 12) -> list[str]:
    """The model's greedy answer to each example, in their order, special tokens removed.

    Prompts are sorted by length and left-padded within a batch, which `generate` masks and numbers around for every method, the
    prefix's tokens included (a test holds this). Raises ValueError on no examples.
    """
    return answer_and_choose(model, loaded, examples, [()] * len(examples), run, max_new_tokens=max_new_tokens)[0]


def answer_and_choose(
    model: nn.Module, loaded: Loaded, examples: Sequence[Example], options: Sequence[tuple[str, ...]], run: Run, *, max_new_tokens: int = 12
) -> tuple[list[str], list[list[float] | None]]:
    """The greedy answer to each example, as `answer` gives it, and how likely the model takes each of its `options` to be (`records.options`).

    A likelihood is the mean log-probability, in nats, of the option's tokens and the end of turn; None in place of the list for a question
    without options. Nothing is generated for it, so that an answer that is known is told from one that is well put. A prompt is read once
    for both; prompts of one length are read together, which needs no padding before an option. Raises ValueError on no examples.
    """
    if not examples:
        raise ValueError("answer was given no examples")
    pictures = features.encode(loaded, [e.image for e in examples])
    prompts = [pictures.tokens(example.image, example.question) for example in examples]
    answers, likelihoods = [""] * len(examples), [None] * len(examples)
    with _steady(model, loaded, run):
        for places in _batches(options, [len(prompt["input_ids"]) for prompt in prompts]):
            inputs = pictures.batch([prompts[p] for p in places], [examples[p].image for p in places], left=True)
            found = _read(model, loaded, inputs, [options[p] for p in places], max_new_tokens)
            for place, text, values in zip(places, *found, strict=True):
                answers[place], likelihoods[place] = text, values
    return answers, likelihoods


@contextmanager
def _steady(model: nn.Module, loaded: Loaded, run: Run) -> Iterator[None]:
    """For answering: no dropout, no gradient, products as `run.precision` says; under bf16 what the blocks add up, and the logits, in fp32 all the same.

    A logit of 20 has neighbours 0.125 apart in bf16: answers would tie, and which of them is given would depend on what was read beside it. Keys
    and values stay in bf16: a cache is no larger. The head is held twice meanwhile.
    """
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad(), loading.autocast(run, device), fused(loaded):
        if loading.products(run.precision) != "bf16":
            yield
            return
        head, inside = loaded.model.get_output_embeddings(), _inside(loaded)
        weight, bias = head.weight.float(), None if head.bias is None else head.bias.float()

        def logits(hidden: torch.Tensor) -> torch.Tensor:
            with torch.autocast(device.type, enabled=False):
                return F.linear(hidden.to(weight), weight, bias)

        def fine(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
            return inputs, named | {"inputs_embeds": named["inputs_embeds"].float()}

        hooks, usual = [inside.register_forward_pre_hook(fine, with_kwargs=True)], vars(head).get("forward")
        head.forward = logits  # not a hook, which would come after a product in bf16 that nobody needs
        turns = [child for name, child in inside.named_children() if "rotary" in name]
        hooks += [turn.register_forward_hook(lambda _, __, made: tuple(part.bfloat16() for part in made)) for turn in turns]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            del head.forward
            vars(head).update({} if usual is None else {"forward": usual})


def _inside(loaded: Loaded) -> nn.Module:
    """The module that the LLM's blocks are in."""
    return loaded.model.get_submodule(loaded.towers.layer.partition(".{i}")[0].rpartition(".")[0])


@contextmanager
def fused(loaded: Loaded) -> Iterator[None]:
    """PyTorch's fused attention within, but where scores are capped, which it cannot: slow is only its backward pass on a CPU (`loading.best_attention`)."""
    config = _inside(loaded).config
    usual = config._attn_implementation
    config._attn_implementation = usual if getattr(config, "attn_logit_softcapping", None) else "sdpa"
    try:
        yield
    finally:
        config._attn_implementation = usual


def _batches(options: Sequence[tuple[str, ...]], lengths: list[int]) -> Iterator[list[int]]:
    """The places of examples that are read together: without options of similar length, with options of the same."""
    order = sorted(range(len(options)), key=lengths.__getitem__)
    several = [(BATCH, [p for p in order if not options[p]])]
    several += [(CHOSEN, list(same)) for _, same in groupby((p for p in order if options[p]), key=lengths.__getitem__)]
    for size, places in several:
        yield from (places[start : start + size] for start in range(0, len(places), size))


def _read(
    model: nn.Module, loaded: Loaded, inputs: dict[str, torch.Tensor], options: list[tuple[str, ...]], max_new_tokens: int
) -> tuple[list[str], list[list[float] | None]]:
    """Answers to a batch of prompts and the likelihoods of their options, which all of them have or none."""
    tokenizer, device, length = loaded.processor.tokenizer, next(model.parameters()).device, inputs["input_ids"].shape[1]
    ends = model.generation_config.eos_token_id
    ends = sorted({loaded.end, *(ends if isinstance(ends, list) else [] if ends is None else [ends])})
    out = model.generate(
        **{name: tensor.to(device) for name, tensor in inputs.items()},
        max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=ends, pad_token_id=loaded.pad, return_dict_in_generate=True, output_logits=any(options),
    )  # fmt: skip
    texts = [text.strip() for text in tokenizer.batch_decode(out.sequences[:, length:], skip_special_tokens=True)]
    if not any(options):
        return texts, [None] * len(texts)
    out.past_key_values.crop(length + 1 - out.sequences.shape[1])  # the prompt, and a method's own tokens before it, stay
    tokens = [[[*loaded.tokens(option), loaded.end] for option in several] for several in options]
    return texts, _likelihoods(model, out.past_key_values, out.logits[0], tokens)


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
    with _steady(model, loaded, run):
        for name, text in passages.items():
            ids = loaded.processor.tokenizer(loaded.plain(text), return_tensors="pt")["input_ids"].to(device)  # (1, tokens)
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
            nats = F.cross_entropy(logits[0, :-1].float(), ids[0, 1:], reduction="sum")
            found.append({"passage": name, "nats": nats.item(), "tokens": ids.shape[1] - 1})
    return found
