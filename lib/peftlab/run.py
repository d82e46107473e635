"""Run: what one experiment is, one field per grid axis, validated, with its id."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from peftlab import datasets, methods, models

# By stage, raised by hand when a change of code changes its results: finished stages of another protocol are stale.
PROTOCOL = {"prepare": 1, "finetune": 1, "evaluate": 2, "probe": 2}

CONTROLS = ("again",)  # scalars a notebook's parameters cell may hold that are not axes: make a finished stage again


def axis(default: Any, says: str, stage: str = "finetune") -> Any:
    """A dataclass field that is a grid axis: what it means, and the first stage whose result it changes."""
    return field(default=default, metadata={"says": says, "stage": stage})


@dataclass(frozen=True)
class Run:
    """One run of the study. Every field is a JSON scalar and an axis of the grid.

    The fields of stage ``finetune`` identify the run (`id`); those of ``evaluate`` and ``probe`` only name which answers
    are asked of it (`test_id`, `probe`), so that a model is tuned once however often it is asked.
    """

    model: str = axis("pocket-mlp", "base model: a card in lib/peftlab/models")
    dataset: str = axis("icons_choice", "data set to fine-tune on: a card in lib/peftlab/datasets")
    method: str = axis("lora", "PEFT method: a card in lib/peftlab/methods")
    connector: str = axis("frozen", "frozen | tuned, with a learning rate of its own")
    size: int | None = axis(None, "rank, bottleneck or tokens; None: the method card's")
    budget: float | None = axis(None, "size such that at most so many per cent of the base's parameters train, instead of size")
    location: str | None = axis(None, "where in a block: attn | mlp | both; None: the method card's first")
    layers: int | None = axis(None, "of selective methods: the last so many blocks of the LLM; None: all")
    lr: float | str = axis("card", "learning rate; card: the method card's, paper: Zhou et al. 2024")
    connector_lr: float | str = axis("card", "the connector's learning rate; card | paper | a number")
    quantisation: str = axis("none", "of the frozen LLM: none | nf4 (double quantisation) | nf4_single | int8")
    precision: str = axis("bf16", "of the frozen weights and of products: bf16 | fp32; what trains is fp32 always")
    checkpointing: bool = axis(False, "whether the backward pass computes each block's activations again: less memory, more time, the same result")
    steps: int = axis(60, "optimiser steps; 60 is the smoke run")
    batch_size: int = axis(16, "examples a step")
    train_size: int | None = axis(None, "training examples, the first of a seeded order; None: all")
    train_pictures: str = axis("true", "pictures in training: true | shuffled (a control: format without sight)")
    replay: float | None = axis(None, "share of examples of data the base has seen, beside the training examples; None: none")
    keep_every: int | None = axis(None, "steps after which what was trained so far is kept, again and again, to be probed; None: only the end is")
    seed: int = axis(42, "of initialisation, order and dropout")
    test_dataset: str = axis("same", "data set to evaluate on; same: the one tuned on", "evaluate")
    test_pictures: str = axis("true", "pictures in evaluation: true | shuffled | blank (baselines)", "evaluate")
    test_size: int | None = axis(200, "test questions, the first of a seeded order; None: all", "evaluate")
    probe: str = axis("presence", "hallucination probe: a name in lib/peftlab/probes.py", "probe")
    probe_size: int | None = axis(180, "probe questions: whole balanced triples of presence, pictures to caption; None: all", "probe")
    probe_step: int | None = axis(None, "step of the training that is probed, one that keep_every keeps; None: the last", "probe")

    def __post_init__(self) -> None:
        levels = {
            "connector": ("frozen", "tuned"),
            "quantisation": ("none", *methods.QUANTISED),
            "precision": ("bf16", "fp32"),
            "train_pictures": ("true", "shuffled"),
            "test_pictures": ("true", "shuffled", "blank"),
            "probe": ("presence", "pope", "repope", "scene_captions", "clean_captions"),
        }
        models.card(self.model), datasets.card(self.dataset)
        if self.test_dataset != "same":
            datasets.card(self.test_dataset)
        card = methods.card(self.method)
        _require(self.method == "none" or "train" in datasets.card(self.dataset).sizes, f"dataset {self.dataset} only tests: name it as test_dataset, or as a probe")
        for name, allowed in levels.items():
            _require(getattr(self, name) in allowed, f"{name} is {getattr(self, name)!r}; choose one of {', '.join(allowed)}")
        _require(
            self.connector in card.connectors,
            f"method {self.method} with connector {self.connector}: {self.method} has only connector {' or '.join(card.connectors)}",
        )
        _require(
            self.quantisation in card.quantisations,
            f"method {self.method} on a base with quantisation {self.quantisation}: {self.method} allows only {' or '.join(card.quantisations)}. {card.cannot}".rstrip(),
        )
        _require(isinstance(self.checkpointing, bool), f"checkpointing is {self.checkpointing!r}; True or False")
        _require(card.checkpoints or not self.checkpointing, f"checkpointing with {self.method}: transformers drops the cache that holds a prefix when it computes a block again")
        reason = methods.REFUSED.get((self.method, models.card(self.model).family))
        _require(reason is None, f"method {self.method} on model {self.model}: {reason} (REFUSED in lib/peftlab/methods/__init__.py)")
        for name in ("steps", "batch_size"):
            _require(_whole(getattr(self, name)) and getattr(self, name) >= 1, f"{name} is {getattr(self, name)!r}; a whole number of at least 1")
        _require(_whole(self.seed) and 0 <= self.seed < 2**32, f"seed is {self.seed!r}; a whole number from 0 to 4294967295")
        for name in ("size", "layers", "train_size", "test_size", "probe_size", "keep_every", "probe_step"):
            value = getattr(self, name)
            _require(value is None or (_whole(value) and value >= 1), f"{name} is {value!r}; a whole number of at least 1, or None")
        _require(self.size is None or card.size_name is not None, f"size is {self.size!r}, but {self.method} has no size: leave it None")
        budget = self.budget
        percent = budget is None or (isinstance(budget, (int, float)) and not isinstance(budget, bool) and 0 < budget <= 100)
        _require(percent, f"budget is {budget!r}; per cent of the base's parameters, above 0 and at most 100, or None")
        _require(budget is None or (card.size_name is not None and self.size is None), f"budget is {budget!r}: it chooses the size of {self.method}, which {'is given too' if card.size_name else 'has none'}")
        share = self.replay
        fits = share is None or (isinstance(share, (int, float)) and not isinstance(share, bool) and 0 < share <= 1)
        _require(fits, f"replay is {share!r}; a share above 0 and at most 1, such as 0.05, or None")
        _require(share is None or bool(models.card(self.model).seen), f"replay is {share!r}, but no data set is known to have been seen by {self.model}")
        known = None if self.method == "none" else self.train_size or datasets.card(self.dataset).sizes["train"]
        if known:  # else it is known once the data set is read, whose size its card leaves open
            self.replayed(known)
        each, at = self.keep_every, self.probe_step
        _require(each is None or self.method == "none" or each < self.steps, f"keep_every is {each!r}, which keeps nothing of {self.steps} steps: a whole number below that, or None")
        _require(each is None or methods.keeps(self.method), f"keep_every is {each!r}, but what {self.method} stores is made at the end of its training")
        kept = self.method != "none" and (at == self.steps or (each is not None and at is not None and at < self.steps and at % each == 0))
        _require(at is None or kept, f"probe_step is {at!r}; the last step, {self.steps}, or one before it that keep_every ({each}) keeps, of a method that trains, or None")
        places = ", ".join(card.locations) or "no such choice: leave it None"
        _require(self.location is None or self.location in card.locations, f"location is {self.location!r}; {self.method} has {places}")
        _require(self.lr != "paper" or card.lr is None or card.lr_paper is not None, f"lr is 'paper', but Zhou et al. 2024 give no rate for {self.method}: use card or a number")
        _require(self.layers is None or card.layers, f"layers is {self.layers!r}, but {self.method} is not limited to the last blocks: leave it None")
        for name in ("lr", "connector_lr"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0
            _require(number or value in ("card", "paper"), f"{name} is {value!r}; card, paper, or a number above 0")
        own = card.lr is not None or self.method == "none"
        _require(own or isinstance(self.lr, str), f"lr is {self.lr!r}, but {self.method} trains the connector alone: its rate is connector_lr")

    @classmethod
    def from_cell(cls, names: Mapping[str, Any]) -> "Run":
        """The run that a notebook's parameters cell describes, from its ``globals()``.

        Every scalar in the cell must be an axis or one of `CONTROLS`; a misspelt one raises ValueError with the axes named.
        """
        given = {k: v for k, v in names.items() if not k.startswith("_") and (v is None or isinstance(v, (bool, int, float, str)))}
        hidden = {"In", "Out", "exit", "quit", "PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH"}
        return cls.from_dict({k: v for k, v in given.items() if k not in hidden and k not in CONTROLS})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Run":
        """A run from axis values; unknown axes raise ValueError with the axes named."""
        known = [f.name for f in fields(cls)]
        for name in values:
            _require(name in known, f"{name!r} is not an axis; the axes are {', '.join(known)} (lib/peftlab/run.py)")
        return cls(**values)

    def axes(self) -> dict[str, Any]:
        """Every axis with its value as given."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @cached_property
    def id(self) -> str:
        """Folder name of the tuned model: a readable slug and a hash of the non-default fine-tuning fields."""
        chosen = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.metadata["stage"] == "finetune" and getattr(self, f.name) != f.default
        }
        digest = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.model}-{self.dataset}-{self.method}-{self.connector}-s{self.seed}-{digest}"

    @property
    def tested_on(self) -> str:
        """The data set evaluated on, resolved."""
        return self.dataset if self.test_dataset == "same" else self.test_dataset

    @property
    def test_id(self) -> str:
        """Folder name of an evaluation: the data set, the pictures unless true, the size unless all."""
        return "-".join(
            [self.tested_on] + ([self.test_pictures] if self.test_pictures != "true" else []) + ([f"n{self.test_size}"] if self.test_size else [])
        )

    @property
    def probe_id(self) -> str:
        """Folder name of a probe: its name, its size unless all, the step unless the last."""
        return self.probe + (f"-n{self.probe_size}" if self.probe_size else "") + (f"-at{self.probe_step}" if self.probe_step else "")

    def replayed(self, count: int) -> int:
        """How many examples are replayed beside `count` of training; raises ValueError where a share of them is not one."""
        found = round((self.replay or 0) * count)
        _require(found > 0 or not self.replay, f"replay is {self.replay!r}, which of {count} training examples is not one: a share of at least {1 / count:.2g}, more of them (train_size), or None")
        return found

    @property
    def kept(self) -> tuple[int, ...]:
        """The steps before the last after which what was trained so far is kept."""
        return tuple(range(self.keep_every, self.steps, self.keep_every)) if self.keep_every else ()

    @property
    def probed(self) -> str:
        """The file of the tuned model that is probed."""
        return adapter_file(None if self.probe_step == self.steps else self.probe_step)

    def resolved(self) -> dict[str, Any]:
        """Every axis with what the cards put in its place: numbers for learning rates and size, names for data sets."""
        card, values = methods.card(self.method), self.axes()
        values["size"] = self.size if self.size is not None else card.size if self.budget is None else None
        values["lr"] = {"card": card.lr, "paper": card.lr_paper}.get(self.lr, self.lr) if card.lr is not None else None
        tuned = self.connector == "tuned"
        rates = {"card": methods.CONNECTOR_LR, "paper": methods.CONNECTOR_LR_PAPER}
        values["connector_lr"] = rates.get(self.connector_lr, self.connector_lr) if tuned else None
        values["test_dataset"] = self.tested_on
        if self.method == "none":
            values.update(steps=0, train_size=0, keep_every=None)
        return values


def adapter_file(step: int | None = None) -> str:
    """The name of the file that holds what was trained: at the end, or after a step that was kept."""
    return "adapter.safetensors" if step is None else f"adapter-{step}.safetensors"


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise ValueError(sentence)
