"""Answers: batched by length, greedy, deterministic; how likely each of a question's options is; and the loss on plain text.

What the prompts about one picture begin with, the picture in it, is read once for all of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, takewhile
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Cache

from peftlab import features, loading, methods
from peftlab.models import Loaded
from peftlab.records import Example
from peftlab.run import Run

BATCH = 64
CHOSEN = 16  # prompts read at once where their options are weighed too: a cache for every option of each
HELD = 4 * 2**30  # bytes of keys and values that a batch holds, at most: 64 questions to LLaVA-1.5-7B would take 20 GB

Found = tuple[list[str], list[list[float] | None]]  # answers, and how likely their options are


def answer(model: nn.Module, loaded: Loaded, examples: Sequence[Example], run: Run, *, max_new_tokens: int = 12) -> list[str]:
    """The model's greedy answer to each example, in their order, special tokens removed.

    Prompts are sorted by length and left-padded within a batch, which `generate` masks and numbers around for every method, the
    prefix's tokens included (a test holds this). Raises ValueError on no examples.
    """
    return answer_and_choose(model, loaded, examples, [()] * len(examples), run, max_new_tokens=max_new_tokens)[0]


def answer_and_choose(
    model: nn.Module, loaded: Loaded, examples: Sequence[Example], options: Sequence[tuple[str, ...]], run: Run, *, max_new_tokens: int = 12
) -> Found:
    """The greedy answer to each example, as `answer` gives it, and how likely the model takes each of its `options` to be (`records.options`).

    A likelihood is the mean log-probability, in nats, of the option's tokens and the end of turn; None in place of the list for a question
    without options. Nothing is generated for it, so that an answer that is known is told from one that is well put. A prompt is read once
    for both; where a picture is asked about several times, what its prompts begin with is read once too. Raises ValueError on no examples.
    """
    if not examples:
        raise ValueError("answer was given no examples")
    asked = _Asked(model, loaded, examples, options, features.encode(loaded, [e.image for e in examples]), run, max_new_tokens)
    answers, likelihoods = [""] * len(examples), [None] * len(examples)
    with _steady(model, loaded, run):
        for places, found in asked.found():
            for place, text, values in zip(places, *found, strict=True):
                answers[place], likelihoods[place] = text, values
    return answers, likelihoods


class _Group(NamedTuple):
    """Questions on one picture: how many tokens their prompts have in common at the start, and their places."""

    start: int
    places: list[int]


@dataclass(frozen=True)
class _Asked:
    """Questions put to a model; the place of a question is its number among them."""

    model: nn.Module
    loaded: Loaded
    examples: Sequence[Example]
    options: Sequence[tuple[str, ...]]
    pictures: features.Features
    run: Run
    max_new_tokens: int

    @cached_property
    def prompts(self) -> list[dict[str, list[int]]]:
        return [self.pictures.tokens(example.image, example.question) for example in self.examples]

    def found(self) -> Iterator[tuple[list[int], Found]]:
        """The places of questions that are read together, and what is found of them."""
        alone, several = self._groups()
        for places in self._batches(alone, same=True):
            inputs = self.pictures.batch([self.prompts[p] for p in places], [self.examples[p].image for p in places], left=True)
            yield places, self._read(places, inputs)
        for window in self._windows(several):
            yield from self._continued(window)

    def _groups(self) -> tuple[list[int], list[_Group]]:
        """The places of questions that are read by themselves, and of those on one picture that are not: where the whole picture comes before they differ.

        By themselves are read all in families whose tokens are of several kinds: where a picture's tokens see each other, or are numbered in two
        dimensions, a prompt is not read in two parts.
        """
        alone, several, by_picture = list[int](), list[_Group](), dict[str, list[int]]()
        for place, (prompt, name) in enumerate(zip(self.prompts, self.pictures.names, strict=True)):
            (by_picture.setdefault(name, []) if set(prompt) == {"input_ids"} else alone).append(place)
        picture = self.loaded.model.config.image_token_id
        for places in by_picture.values():
            start = self._start(places) if len(places) > 1 else 0
            if any(picture in self.prompts[place]["input_ids"][start:] for place in places):
                alone += places
            else:
                several.append(_Group(start, places))
        return alone, several

    def _start(self, places: Sequence[int]) -> int:
        """How many tokens prompts begin with in common; each has one more at least."""
        columns = zip(*(self.prompts[place]["input_ids"][:-1] for place in places), strict=False)
        return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))

    def _windows(self, groups: Sequence[_Group]) -> Iterator[list[_Group]]:
        """Groups that are begun together: of about two batches of questions, so that these are of similar length."""
        if not groups:
            return
        most = 2 * self._most([place for group in groups for place in group.places])
        window, held = list[_Group](), 0
        parts = (_Group(group.start, group.places[first : first + most]) for group in groups for first in range(0, len(group.places), most))
        for part in sorted(parts, key=lambda part: part.start):
            if held + len(part.places) > most:
                yield window
                window, held = [], 0
            window.append(part)
            held += len(part.places)
        yield window

    def _batches(self, places: Sequence[int], *, same: bool) -> Iterator[list[int]]:
        """The places that are read together: without options of similar length, with options of the same where `same`, so that no pad is before one."""
        order = sorted(places, key=self._length)
        chosen = [place for place in order if self.options[place]]
        parts = [[place for place in order if not self.options[place]]]
        parts += [list(part) for _, part in groupby(chosen, key=self._length)] if same else [chosen]
        for part in filter(None, parts):
            most = self._most(part)
            yield from (part[first : first + most] for first in range(0, len(part), most))

    def _length(self, place: int) -> int:
        return len(self.prompts[place]["input_ids"])

    def _most(self, places: Sequence[int]) -> int:
        """How many questions are read at once: at most `BATCH`, or `CHOSEN` where options are weighed, and no more keys and values than `HELD`."""
        config, chosen = _inside(self.loaded).config, max(len(self.options[place]) for place in places)
        heads = config.num_key_value_heads * (getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        token = 2 * config.num_hidden_layers * heads * (2 if loading.products(self.run.precision) == "bf16" else 4)
        return max(1, min(CHOSEN if chosen else BATCH, HELD // (token * max(map(self._length, places)) * (1 + chosen))))

    def _continued(self, groups: Sequence[_Group]) -> Iterator[tuple[list[int], Found]]:
        """As `found`, each group from the keys and values of what its prompts begin with."""
        row = {place: number for number, group in enumerate(groups) for place in group.places}
        begun = [{"input_ids": self.prompts[group.places[0]]["input_ids"][: group.start]} for group in groups]
        inputs = self.pictures.batch(begun, [self.examples[group.places[0]].image for group in groups], left=True)
        cache = self._generated(self.model, inputs, max_new_tokens=1).past_key_values
        before = self._mask(cache, inputs)
        for places in self._batches(list(row), same=False):
            rows = torch.tensor([row[place] for place in places])
            inputs = self.pictures.words([{"input_ids": self.prompts[place]["input_ids"][groups[row[place]].start :]} for place in places], left=True)
            inputs["attention_mask"] = torch.cat([before[rows], inputs["attention_mask"]], 1)
            yield places, self._read(places, inputs, _selected(cache, rows))

    def _read(self, places: Sequence[int], inputs: dict[str, torch.Tensor], begun: Cache | None = None) -> Found:
        """Answers to a batch of prompts, or of what follows after `begun`, and the likelihoods of their options, which all of them have or none."""
        options, length = [self.options[place] for place in places], inputs["input_ids"].shape[1]
        model, more = (self.model, {}) if begun is None else (methods.inner(self.model), {"past_key_values": begun})  # what peft puts in front is in the cache
        out = self._generated(model, inputs, max_new_tokens=self.max_new_tokens, output_logits=any(options), **more)
        texts = self.loaded.processor.tokenizer.batch_decode(out.sequences[:, length:], skip_special_tokens=True)
        texts = [text.strip() for text in texts]
        if not any(options):
            return texts, [None] * len(texts)
        cache = out.past_key_values
        cache.crop(length + 1 - out.sequences.shape[1])  # the prompt, and a method's own tokens before it, stay
        tokens = [[[*self.loaded.tokens(option), self.loaded.end] for option in several] for several in options]
        mask = self._mask(cache, inputs) if begun is None else inputs["attention_mask"]
        return texts, _likelihoods(methods.inner(self.model), cache, out.logits[0], tokens, mask)

    def _mask(self, cache: Cache, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """The mask of what `cache` holds: with the tokens in front that peft's prefix has; a soft prompt (`methods.prompt`) counts its own itself."""
        mask = inputs["attention_mask"]
        return F.pad(mask, (cache.get_seq_length() - mask.shape[1], 0), value=1) if methods.inner(self.model) is not self.model else mask

    def _generated(self, model: nn.Module, inputs: dict[str, torch.Tensor], **named: Any) -> Any:
        ends, device = model.generation_config.eos_token_id, next(model.parameters()).device
        ends = sorted({self.loaded.end, *(ends if isinstance(ends, list) else [] if ends is None else [ends])})
        inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
        return model.generate(**inputs, do_sample=False, eos_token_id=ends, pad_token_id=self.loaded.pad, return_dict_in_generate=True, **named)


def _selected(cache: Cache, rows: torch.Tensor) -> Cache:
    """A cache of these rows of another, which stays as it is."""
    made = copy(cache)
    made.layers = [copy(layer) for layer in cache.layers]
    made.batch_select_indices(rows.to(cache.layers[0].keys.device))
    return made


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


def _likelihoods(
    model: nn.Module, cache: Cache, following: torch.Tensor, options: list[list[list[int]]], mask: torch.Tensor
) -> list[list[float]]:
    """Mean log-probability of every option's tokens after its prompt, which `cache` holds; `options` are token lists for each prompt.

    ``following`` (prompts, vocabulary) are the logits of the first token after the prompt; `mask` (prompts, tokens) tells tokens in the
    cache from pads.
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
        before = mask.to(owner.device)[owner]
        if before.all():
            places = _places(model, owner, before.shape[1], longest - 1)
        else:
            places = {"position_ids": before.sum(1, keepdim=True) + torch.arange(longest - 1, device=owner.device)}
        more = model(input_ids=ids[:, :-1], attention_mask=torch.cat([before, there[:, :-1].long()], 1), past_key_values=cache, use_cache=True, **places)
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
