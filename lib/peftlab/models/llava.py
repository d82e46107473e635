"""LLaVA-1.5 (Liu et al. 2024, https://arxiv.org/abs/2310.03744): CLIP ViT-L/14 at 336 pixels, a two-layer MLP, Vicuna."""

import errno
import pickle
import struct
import textwrap
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from tokenizers import AddedToken
from transformers import AutoTokenizer, CLIPVisionConfig, CLIPVisionModel, GenerationConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerBase
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from peftlab import loading
from peftlab.models import Loaded, Towers

TOWERS = Towers()
CHAT = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }} {% endif %}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
VICUNA_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
LLMS = {  # Vicuna's published values
    "llava-1.5-7b": VICUNA_7B,
    "sharegpt4v-7b": VICUNA_7B,
    "llava-1.5-13b": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
}

# Where the parts of a checkpoint in LLaVA's own layout are in transformers'; ShareGPT4V and the first VILA are stored so.
LAYOUT = {
    "model.mm_projector.0.": "model.multi_modal_projector.linear_1.",
    "model.mm_projector.2.": "model.multi_modal_projector.linear_2.",
    "model.vision_tower.vision_tower.vision_model.": "model.vision_tower.",
    "lm_head.": "lm_head.",
    "model.": "model.language_model.",
}

# What reading a broken file of weights may raise: of OSErrors EINVAL, torch's seek before the beginning; others are the machine's.
UNREADABLE = (SafetensorError, pickle.UnpicklingError, struct.error, EOFError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, AssertionError, OSError)


def load(run: Any) -> Loaded:
    """The model of `run.model`, from the hub or at random."""
    return loading.load(run, TOWERS, processor=LlavaProcessor, tiny=tiny)


def architecture(name: str) -> LlavaConfig:
    """The published sizes, with Vicuna's own vocabulary of 32,000 (LLaVA-1.5's copy on the hub is padded to 32,064)."""
    llm = LlamaConfig(vocab_size=32000, tie_word_embeddings=False, **loading.published(name, LLMS))
    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336, patch_size=14, projection_dim=768
    )  # fmt: skip
    return LlavaConfig(vision_config=vision, text_config=llm, tie_word_embeddings=False)


def skeleton(name: str) -> Loaded:
    """LLaVA-1.5 on the meta device."""
    return loading.hollow(LlavaForConditionalGeneration, architecture(name), TOWERS)


def tiny(name: str) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """CLIP on 16 pixels in four patches, a connector of width 32, LLaMA of two layers."""
    tokenizer = loading.byte_tokenizer(["<s>", "</s>", "<pad>", "<image>"], bos="<s>", eos="</s>", pad="<pad>")
    vision = CLIPVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8)
    text = LlamaConfig(vocab_size=len(tokenizer), **loading.TINY, bos_token_id=0, eos_token_id=1, pad_token_id=2)
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_index=3, image_seq_length=4, attn_implementation=loading.best_attention())
    )
    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=1, pad_token_id=2)
    return model, _processor(tokenizer, model.config)


def _processor(tokenizer: PreTrainedTokenizerBase, config: LlavaConfig) -> LlavaProcessor:
    """LLaVA-1.5's: a picture's shorter side to the tower's, the middle cut out, the class token's feature left out."""
    side = config.vision_config.image_size
    pictures = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    return LlavaProcessor(
        image_processor=pictures, tokenizer=tokenizer, patch_size=config.vision_config.patch_size, vision_feature_select_strategy="default",
        image_token="<image>", num_additional_image_tokens=1, chat_template=CHAT,
    )  # fmt: skip


def convert(original: dict[str, torch.Tensor], model: LlavaForConditionalGeneration) -> None:
    """Fill `model` in place with the tensors of a checkpoint in LLaVA's own layout.

    ``model.mm_projector``, ``model.vision_tower.vision_tower`` and the LLM directly under ``model``. A checkpoint without a vision
    tower leaves the model's as it is (LLaVA keeps CLIP's own weights apart); position ids, which older versions stored, are
    dropped, and a vocabulary smaller than the model's fills its first rows. Raises ValueError on a tensor that has no place, a
    part that is missing, or a shape that differs.
    """
    live = model.state_dict(keep_vars=True)
    named = {_place(name, live): tensor for name, tensor in original.items() if not name.endswith(("position_ids", "rotary_emb.inv_freq"))}
    given = {TOWERS.part(name) for name in named}
    for name in live.keys() - named.keys():
        if TOWERS.part(name) in given | {"connector", "llm"} and not (name == "lm_head.weight" and model.config.tie_word_embeddings):
            raise ValueError(f"the checkpoint holds nothing for {name}: it is not a whole LLaVA, or another one")
    for name, tensor in named.items():
        rows = live[name][: len(tensor)] if name.endswith(("embed_tokens.weight", "lm_head.weight")) else live[name]
        if rows.shape != tensor.shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)} in the checkpoint, the model has {tuple(live[name].shape)}")
        with torch.no_grad():
            rows.copy_(tensor)


def convert_folder(name: str, folder: Path, target: Path, *, vision: Path | None = None) -> Path:
    """Write a checkpoint in LLaVA's own layout as the model of card `name` in transformers' layout; returns `target`.

    `folder` holds safetensors or ``pytorch_model*.bin`` files and the tokenizer; `vision` a CLIP vision tower as transformers stores
    one, where the checkpoint holds none. As in LLaVA's published conversions the vocabulary gets a token for pictures and is filled up to
    a multiple of 64 with the mean of its embeddings. Raises ValueError where a part is missing or `target` holds something.
    """
    if target.exists() and any(target.iterdir()):
        raise ValueError(f"{target} is not empty: delete it to convert again")
    tensors = _read(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken("<image>", special=True, normalized=False)])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.unk_token or tokenizer.eos_token
    config = architecture(name)
    config.image_token_index = tokenizer.convert_tokens_to_ids("<image>")
    config.text_config.vocab_size = -(-len(tokenizer) // 64) * 64
    model = LlavaForConditionalGeneration(config).to(next(iter(tensors.values())).dtype)
    if vision is not None:
        model.model.vision_tower.load_state_dict(CLIPVisionModel.from_pretrained(vision).state_dict())
    elif not any("vision_tower" in key for key in tensors):
        raise ValueError(f"{folder} holds no vision tower: name the folder of the one it was tuned with (--vision)")
    convert(tensors, model)
    for table in {id(t): t for t in (model.get_input_embeddings().weight, model.lm_head.weight)}.values():
        known = min(len(tensors[k]) for k in tensors if k.endswith("embed_tokens.weight"))
        with torch.no_grad():
            table[known:] = table[:known].float().mean(0).to(table.dtype)
    model.save_pretrained(target)
    _processor(tokenizer, config).save_pretrained(target)
    return target


def _read(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint's files, none of which may execute anything."""
    safe, pickled = sorted(folder.glob("*.safetensors")), sorted(folder.glob("pytorch_model*.bin"))
    if not safe and not pickled:
        raise ValueError(f"{folder} holds no *.safetensors and no pytorch_model*.bin: it is not a checkpoint")
    tensors = dict[str, torch.Tensor]()
    for file in safe or pickled:
        try:
            tensors |= load_file(file) if safe else torch.load(file, weights_only=True, map_location="cpu")
        except UNREADABLE as error:
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            why = textwrap.shorten(f"{type(error).__name__}: {error}", 120, placeholder=" …")
            raise ValueError(f"{file} is empty, cut or no file of tensors ({why}): download it again") from error
    if not tensors:
        raise ValueError(f"{folder} holds no tensor in {', '.join(file.name for file in safe or pickled)}: it is not a checkpoint")
    return tensors


def _place(name: str, live: dict[str, torch.Tensor]) -> str:
    """The name in transformers' layout of a tensor that LLaVA's own layout calls `name`."""
    before = next((prefix for prefix in LAYOUT if name.startswith(prefix)), "")
    place = LAYOUT.get(before, "") + name.removeprefix(before)
    if place not in live:
        raise ValueError(f"the checkpoint's {name} has no place in this model: it is not in LLaVA's own layout, or of another size")
    return place
