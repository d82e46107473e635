"""Cards of the models: where the weights come from, which family reads them, what they have seen."""

import gzip
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any

from peftlab import paths


@dataclass(frozen=True)
class ModelCard:
    """Where a model comes from and what it knows.

    ``family`` names the file in this folder that loads it and says where its towers are; ``seen`` the data sets whose
    training split was in its own fine-tuning mix (a property of model x data set), by the names of the cards in
    lib/peftlab/datasets; ``source`` is a hub repository, a folder, `CONVERTED` or `RANDOM`, ``revision`` a commit of it, ``main`` where none is
    pinned yet.
    """

    name: str
    label: str
    family: str
    source: str
    revision: str
    licence: str
    seen: tuple[str, ...]


RANDOM = "random weights"  # the source of the tiny models: every architecture at a few thousand parameters
CONVERTED = "converted"  # the source of models that `python -m peftlab convert` brings into transformers' layout
JOINER = "\N{WORD JOINER}"  # has no width, and is in no token of control
UNUSED = ("labels", "num_patches", "rows", "cols")  # what some processors return that no model is given


LLAVA_MIX = ("vqav2", "gqa", "okvqa", "ocrvqa")  # of what has a card in lib/peftlab/datasets


def _tiny(name: str, label: str, family: str) -> ModelCard:
    return ModelCard(name, f"Tiny {label}", family, RANDOM, "1", "Apache-2.0", ())


MODELS: dict[str, ModelCard] = {
    card.name: card
    for card in (
        ModelCard("pocket-mlp", "Pocket (MLP)", "pocket", "SmolLM2-135M-Instruct + EfficientNet-Lite0", "1", "Apache-2.0", ("scenes", "facts", "titles")),
        ModelCard("pocket-resampler", "Pocket (resampler)", "pocket", "SmolLM2-135M-Instruct + EfficientNet-Lite0", "1", "Apache-2.0", ("scenes", "facts", "titles")),
        ModelCard("pocket-merger", "Pocket (merger)", "pocket", "SmolLM2-135M-Instruct + EfficientNet-Lite0", "1", "Apache-2.0", ("scenes", "facts", "titles")),
        ModelCard("tiny-mlp", "Tiny (MLP)", "pocket", RANDOM, "1", "Apache-2.0", ()),
        _tiny("tiny-resampler", "(resampler)", "pocket"),
        _tiny("tiny-merger", "(merger)", "pocket"),
        # The mix of LLaVA-1.5, and so of ShareGPT4V, also holds A-OKVQA and TextCaps (on TextVQA's pictures), which have no card here.
        ModelCard("llava-1.5-7b", "LLaVA-1.5 7B", "llava", "llava-hf/llava-1.5-7b-hf", "main", "Llama 2 Community", LLAVA_MIX),
        ModelCard("llava-1.5-13b", "LLaVA-1.5 13B", "llava", "llava-hf/llava-1.5-13b-hf", "main", "Llama 2 Community", LLAVA_MIX),
        ModelCard("sharegpt4v-7b", "ShareGPT4V 7B", "llava", CONVERTED, "1", "Llama 2 Community", LLAVA_MIX),
        _tiny("tiny-llava", "LLaVA-1.5", "llava"),
        ModelCard("qwen2-vl-2b", "Qwen2-VL 2B", "qwen_vl", "Qwen/Qwen2-VL-2B-Instruct", "main", "Apache-2.0", ()),
        ModelCard("qwen2-vl-7b", "Qwen2-VL 7B", "qwen_vl", "Qwen/Qwen2-VL-7B-Instruct", "main", "Apache-2.0", ()),
        ModelCard("qwen2.5-vl-3b", "Qwen2.5-VL 3B", "qwen_vl", "Qwen/Qwen2.5-VL-3B-Instruct", "main", "Qwen Research", ()),
        ModelCard("qwen2.5-vl-7b", "Qwen2.5-VL 7B", "qwen_vl", "Qwen/Qwen2.5-VL-7B-Instruct", "main", "Apache-2.0", ()),
        ModelCard("qwen3-vl-2b", "Qwen3-VL 2B", "qwen_vl", "Qwen/Qwen3-VL-2B-Instruct", "main", "Apache-2.0", ()),
        ModelCard("qwen3-vl-4b", "Qwen3-VL 4B", "qwen_vl", "Qwen/Qwen3-VL-4B-Instruct", "main", "Apache-2.0", ()),
        ModelCard("qwen3-vl-8b", "Qwen3-VL 8B", "qwen_vl", "Qwen/Qwen3-VL-8B-Instruct", "main", "Apache-2.0", ()),
        _tiny("tiny-qwen2-vl", "Qwen2-VL", "qwen_vl"),
        _tiny("tiny-qwen2.5-vl", "Qwen2.5-VL", "qwen_vl"),
        _tiny("tiny-qwen3-vl", "Qwen3-VL", "qwen_vl"),
        ModelCard("llava-onevision-0.5b", "LLaVA-OneVision 0.5B", "llava_onevision", "llava-hf/llava-onevision-qwen2-0.5b-ov-hf", "main", "Apache-2.0", ()),
        ModelCard("llava-onevision-7b", "LLaVA-OneVision 7B", "llava_onevision", "llava-hf/llava-onevision-qwen2-7b-ov-hf", "main", "Apache-2.0", ()),
        _tiny("tiny-llava-onevision", "LLaVA-OneVision", "llava_onevision"),
        ModelCard("smolvlm2-256m", "SmolVLM2 256M", "idefics3", "HuggingFaceTB/SmolVLM2-256M-Video-Instruct", "main", "Apache-2.0", ()),
        ModelCard("smolvlm2-500m", "SmolVLM2 500M", "idefics3", "HuggingFaceTB/SmolVLM2-500M-Video-Instruct", "main", "Apache-2.0", ()),
        ModelCard("smolvlm2-2.2b", "SmolVLM2 2.2B", "idefics3", "HuggingFaceTB/SmolVLM2-2.2B-Instruct", "main", "Apache-2.0", ()),
        ModelCard("idefics3-8b", "Idefics3 8B", "idefics3", "HuggingFaceM4/Idefics3-8B-Llama3", "main", "Apache-2.0 (LLM: Llama 3 Community)", ()),
        _tiny("tiny-smolvlm2", "SmolVLM2", "idefics3"),
        _tiny("tiny-idefics3", "Idefics3", "idefics3"),
        ModelCard("internvl3-1b", "InternVL3 1B", "internvl", "OpenGVLab/InternVL3-1B-hf", "main", "MIT (LLM: Apache-2.0)", ()),
        ModelCard("internvl3-2b", "InternVL3 2B", "internvl", "OpenGVLab/InternVL3-2B-hf", "main", "MIT (LLM: Apache-2.0)", ()),
        ModelCard("internvl3-8b", "InternVL3 8B", "internvl", "OpenGVLab/InternVL3-8B-hf", "main", "MIT (LLM: Apache-2.0)", ()),
        _tiny("tiny-internvl3", "InternVL3", "internvl"),
        ModelCard("paligemma2-3b", "PaliGemma 2 3B", "gemma", "google/paligemma2-3b-mix-224", "main", "Gemma terms", ()),
        ModelCard("gemma3-4b", "Gemma 3 4B", "gemma", "google/gemma-3-4b-it", "main", "Gemma terms", ()),
        _tiny("tiny-paligemma2", "PaliGemma 2", "gemma"),
        _tiny("tiny-gemma3", "Gemma 3", "gemma"),
    )
}

REFUSED: dict[str, str] = {
    "qwen-vl-chat": "it exists only as remote code for an old transformers; qwen2.5-vl-7b stands for it",
    "vila-7b": "its connector is a single linear layer, which transformers' LLaVA has not; sharegpt4v-7b and llava-1.5-7b stand for it",
    "vila1.5-3b": "its connector merges neighbouring patches, which transformers' LLaVA has not; internvl3-2b, whose connector does, stands for it",
}


@dataclass(frozen=True)
class Towers:
    """Where a model's parts are: full-path prefixes, as in ``named_parameters()`` of the bare model.

    The connector may have several, also inside the vision tower (Qwen's merger); the output head belongs to the LLM. The defaults
    are LLaVA's, which most families follow: a family's file says what it has otherwise.
    """

    vision: str = "model.vision_tower"
    connector: tuple[str, ...] = ("model.multi_modal_projector",)
    llm: str = "model.language_model"
    layer: str = "model.language_model.layers.{i}"  # of one LLM block
    attn: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")  # linears inside a block
    mlp: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")

    def in_connector(self, name: str) -> bool:
        """Whether parameter `name` is the connector's."""
        return f"{name}.".startswith(tuple(f"{prefix}." for prefix in self.connector))

    def part(self, name: str) -> str:
        """``vision``, ``connector`` or ``llm``: the tower of parameter `name`; raises ValueError where it is in none."""
        if self.in_connector(name):
            return "connector"
        if name.startswith(f"{self.vision}."):
            return "vision"
        if name.startswith((f"{self.llm}.", "lm_head.")):
            return "llm"
        raise ValueError(f"{name} is in no tower: the map of its family in lib/peftlab/models does not cover it")


@dataclass(frozen=True)
class Loaded:
    """A model with its processor and tower map, as `load` returns it."""

    model: Any  # transformers PreTrainedModel
    processor: Any  # transformers ProcessorMixin with a chat template
    towers: Towers
    answer_type: int = 0  # what ``token_type_ids`` holds at an answer's tokens, where a family has them

    def prompt(self, question: str, *, image_tokens: int, before: Sequence[tuple[str, str]] = ()) -> list[int]:
        """Token ids of a conversation up to where the answer to `question` begins.

        Its first turn holds a picture of `image_tokens` tokens; `before` are the (question, answer) pairs of earlier turns. Their texts are
        `plain`, so that no picture and no turn comes out of data.
        """
        text = self.processor.apply_chat_template(self._talk(question, before), add_generation_prompt=True)
        first, rest = text.split(self.processor.image_token, 1)
        text = first + self.processor.image_token * image_tokens + rest
        return self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]

    def inputs(self, image: Any, question: str, *, before: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
        """All that the processor makes of a PIL picture and a conversation up to where the answer to `question` begins.

        Tensors of a batch of one: rows of tokens (1, tokens), and whatever the family is told of the picture. Never truncated. Texts are `plain`.
        """
        talk = self._talk(question, before)
        talk[0]["content"][0]["image"] = image
        made = self.processor.apply_chat_template(talk, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt")
        return {name: tensor for name, tensor in made.items() if name not in UNUSED}

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text of data alone, an answer or a choice; none is a token of control."""
        return self.processor.tokenizer(self.plain(text), add_special_tokens=False)["input_ids"]

    def plain(self, text: str) -> str:
        """A text of data such that processor and tokenizer read it as words: what would be a token of control has a joiner without width after its first character.

        A text without such a token stays as it is. Words that a chat template parts turns by (LLaVA-1.5's "USER:") are no tokens of control.
        """
        return self._control.sub(rf"\1{JOINER}", text)

    @cached_property
    def _control(self) -> re.Pattern[str]:
        """Where a token of control begins: any that the tokenizer marks as special (Gemma has unmarked ones for HTML), and those the processor has for pictures."""
        tokenizer = self.processor.tokenizer
        tokens = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special} | {*tokenizer.all_special_tokens}
        tokens |= {value for name, value in vars(self.processor).items() if name.endswith("_token") and isinstance(value, str)}
        return re.compile(f"(?=(?:{'|'.join(re.escape(t) for t in sorted(tokens) if len(t) > 1)}))(.)", re.DOTALL)

    def _talk(self, question: str, before: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        return _talk(self.plain(question), [(self.plain(asked), self.plain(answered)) for asked, answered in before])

    @property
    def end(self) -> int:
        """The token that ends an answer: the one the chat template puts there, the tokenizer's end of text where it puts none."""
        tokenizer, mark = self.processor.tokenizer, "\N{SECTION SIGN}"
        text = self.processor.apply_chat_template([*_talk(mark), _turn("assistant", mark)])
        after = tokenizer(text.rpartition(mark)[2], add_special_tokens=False)["input_ids"]
        special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        return after[0] if after and after[0] in special else tokenizer.eos_token_id

    @property
    def pad(self) -> int:
        """The token that rows are padded with; it is masked, so any will do where a tokenizer has none."""
        return self.end if self.processor.tokenizer.pad_token_id is None else self.processor.tokenizer.pad_token_id


def _talk(question: str, before: Sequence[tuple[str, str]] = ()) -> list[dict[str, Any]]:
    """The turns of a conversation whose first one begins with a picture."""
    talk: list[dict[str, Any]] = []
    for asked, answered in before:
        talk += [_turn("user", asked), _turn("assistant", answered)]
    talk.append(_turn("user", question))
    talk[0]["content"].insert(0, {"type": "image"})
    return talk


def _turn(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def card(name: str) -> ModelCard:
    """The card of model `name`; raises ValueError naming the choices, or the reason where a known model has none."""
    if str(name).lower() in REFUSED:
        raise ValueError(f"model is {name!r}, which cannot be had: {REFUSED[str(name).lower()]} (lib/peftlab/models/__init__.py)")
    if name not in MODELS:
        raise ValueError(f"model is {name!r}; choose one of {', '.join(MODELS)} (lib/peftlab/models/__init__.py)")
    return MODELS[name]


def load(run: Any) -> Loaded:
    """The bare base model of `run.model` at `run.precision` and `run.quantisation`, frozen, in eval mode, on the CPU or GPU."""
    return import_module(f"peftlab.models.{card(run.model).family}").load(run)


def skeleton(name: str) -> Loaded:
    """The architecture of `name` at full size on the meta device: every name and shape, no weights, no processor.

    From the values typed in the family's file; raises ValueError where it has none for this model.
    """
    family = import_module(f"peftlab.models.{card(name).family}")
    if not hasattr(family, "skeleton"):
        raise ValueError(f"no full-size configuration of {name} is written down (lib/peftlab/models/{card(name).family}.py)")
    return family.skeleton(name)


DELTA = "delta.safetensors.gz"  # of a pocket base, in its folder


def delta(name: str) -> bytes | None:
    """The safetensors of a pocket base's tracked delta, unpacked; None where there is none."""
    file = paths.bases() / name / DELTA
    return gzip.decompress(file.read_bytes()) if file.exists() else None


def digest(name: str) -> str:
    """What the base's weights depend on, as sha256: the card and, for a pocket base, its tracked delta and the scale it is added at."""
    parts = repr(card(name)).encode()
    if (weights := delta(name)) is not None:
        parts += weights + repr(json.loads((paths.bases() / name / "delta.json").read_text())["scale"]).encode()
    return hashlib.sha256(parts).hexdigest()
