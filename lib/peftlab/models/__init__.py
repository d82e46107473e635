"""Cards of the models: where the weights come from, which family reads them, what they have seen."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from peftlab import paths


@dataclass(frozen=True)
class ModelCard:
    """Where a model comes from and what it knows.

    ``family`` names the file in this folder that loads it and says where its towers are; ``seen`` the data sets whose
    training split was in its own fine-tuning mix (a property of model x data set); ``source`` and ``revision`` pin it.
    """

    name: str
    label: str
    family: str
    source: str
    revision: str
    licence: str
    seen: tuple[str, ...]


MODELS: dict[str, ModelCard] = {
    card.name: card
    for card in (
        ModelCard(
            name="pocket-mlp",
            label="Pocket (MLP)",
            family="pocket",
            source="SmolLM2-135M-Instruct + EfficientNet-Lite0",
            revision="1",
            licence="Apache-2.0",
            seen=("scenes", "facts", "titles"),
        ),
        ModelCard(
            name="tiny-mlp",
            label="Tiny (MLP)",
            family="pocket",
            source="random weights",
            revision="1",
            licence="Apache-2.0",
            seen=(),
        ),
    )
}


@dataclass(frozen=True)
class Towers:
    """Full-path prefixes of a model's parts, as in ``named_parameters()`` of the bare model."""

    vision: str
    connector: str
    llm: str
    layer: str  # of one LLM block, with {i}
    attn: tuple[str, ...]  # names of the attention linears inside a block, e.g. "self_attn.q_proj"
    mlp: tuple[str, ...]


@dataclass(frozen=True)
class Loaded:
    """A model with its processor and tower map, as `load` returns it."""

    model: Any  # transformers PreTrainedModel
    processor: Any  # transformers ProcessorMixin with a chat template
    towers: Towers

    def prompt(self, question: str, *, image_tokens: int, before: Sequence[tuple[str, str]] = ()) -> list[int]:
        """Token ids of a conversation up to where the answer to `question` begins.

        Its first turn holds a picture of `image_tokens` tokens; `before` are the (question, answer) pairs of earlier turns.
        """
        talk: list[dict[str, Any]] = []
        for asked, answered in before:
            talk += [_turn("user", asked), _turn("assistant", answered)]
        talk.append(_turn("user", question))
        talk[0]["content"].insert(0, {"type": "image"})
        text = self.processor.apply_chat_template(talk, add_generation_prompt=True)
        first, rest = text.split(self.processor.image_token, 1)
        text = first + self.processor.image_token * image_tokens + rest
        return self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]


def _turn(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def card(name: str) -> ModelCard:
    """The card of model `name`; raises ValueError naming the choices."""
    if name not in MODELS:
        raise ValueError(f"model is {name!r}; choose one of {', '.join(MODELS)} (lib/peftlab/models/__init__.py)")
    return MODELS[name]


def load(run: Any) -> Loaded:
    """The bare base model of `run.model` at `run.precision` and `run.quantisation`, frozen, in eval mode, on the CPU or GPU."""
    return import_module(f"peftlab.models.{card(run.model).family}").load(run)


def digest(name: str) -> str:
    """What the base's weights depend on, as sha256: the card and, for a pocket base, its tracked delta and the scale it is added at."""
    parts, folder = repr(card(name)).encode(), paths.bases() / name
    if (folder / "delta.safetensors").exists():
        parts += (folder / "delta.safetensors").read_bytes() + repr(json.loads((folder / "delta.json").read_text())["scale"]).encode()
    return hashlib.sha256(parts).hexdigest()
