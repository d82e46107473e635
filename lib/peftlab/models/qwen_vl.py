"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: a ViT for pictures of any size whose merger is the connector, positions in three dimensions.

Wang et al. 2024, https://arxiv.org/abs/2409.12191; Bai et al. 2025, https://arxiv.org/abs/2502.13923 and https://arxiv.org/abs/2511.21631.
The merger lies inside the vision tower's module; Qwen3-VL has more of them, which feed its first layers (DeepStack).
"""

from dataclasses import replace
from typing import Any

from transformers import (
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from peftlab import loading
from peftlab.models import Loaded, Towers

TOWERS = Towers(vision="model.visual", connector=("model.visual.merger",))
DEEP = replace(TOWERS, connector=("model.visual.merger", "model.visual.deepstack_merger_list"))  # Qwen3-VL
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
IDS = {"vision_start_token_id": 3, "vision_end_token_id": 4, "image_token_id": 5, "video_token_id": 6}

# By the card's name up to the size: configuration, model, processor, and a tiny vision tower.
VERSIONS: dict[str, tuple[type[PreTrainedConfig], type[PreTrainedModel], type, dict[str, Any]]] = {
    "qwen2-vl": (
        Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor,
        {"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 1, "patch_size": 4},
    ),
    "qwen2.5-vl": (
        Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor,
        {"depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 4, "window_size": 16, "out_hidden_size": 32, "fullatt_block_indexes": [1]},
    ),
    "qwen3-vl": (
        Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor,
        {"depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 4, "out_hidden_size": 32, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
    ),
}  # fmt: skip

# Published configurations: the LLM's, and what differs in the vision tower. Small models tie their output head.
LLMS: dict[str, dict[str, Any]] = {
    "qwen2-vl-2b": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": 151936},
    "qwen2-vl-7b": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064},
    "qwen2.5-vl-3b": {"hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 151936},
    "qwen2.5-vl-7b": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064},
    "qwen3-vl-2b": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, "vocab_size": 151936},
    "qwen3-vl-4b": {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 151936},
    "qwen3-vl-8b": {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 151936},
}
SMALL_EYES = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "deepstack_visual_indexes": [5, 11, 17]}  # of Qwen3-VL 2B and 4B
TIED = ("qwen2-vl-2b", "qwen2.5-vl-3b", "qwen3-vl-2b", "qwen3-vl-4b")


def version(name: str) -> str:
    """The key of `VERSIONS` for the card `name`: without ``tiny-`` or its size."""
    return name.removeprefix("tiny-") if name.startswith("tiny-") else name.rpartition("-")[0]


def load(run: Any) -> Loaded:
    """The model of `run.model`, from the hub or at random."""
    return loading.load(run, towers(run.model), processor=VERSIONS[version(run.model)][2], tiny=tiny)


def towers(name: str) -> Towers:
    """The tower map of the card `name`."""
    return DEEP if version(name) == "qwen3-vl" else TOWERS


def skeleton(name: str) -> Loaded:
    """The model of card `name` on the meta device."""
    text = loading.published(name, LLMS)
    config, model_class, _, _ = VERSIONS[version(name)]
    width = text["hidden_size"]
    vision: dict[str, Any] = {
        "qwen2-vl": {"hidden_size": width},
        "qwen2.5-vl": {"hidden_size": 1280, "out_hidden_size": width},
        "qwen3-vl": {"out_hidden_size": width, **({} if name == "qwen3-vl-8b" else SMALL_EYES)},
    }[version(name)]
    tied = {"tie_word_embeddings": name in TIED}
    return loading.hollow(model_class, config(text_config={**text, **tied}, vision_config=vision, **tied), towers(name))


def tiny(name: str) -> tuple[PreTrainedModel, Any]:
    """Patches of 4 pixels, merged two by two, up to 16 tokens a picture; an LLM of two layers, width 32."""
    config, model_class, processor_class, vision = VERSIONS[version(name)]
    tokenizer = loading.byte_tokenizer(SPECIAL, eos="<|im_end|>", pad="<|endoftext|>")
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    text = {**loading.TINY, "vocab_size": len(tokenizer), "head_dim": 8, "rope_parameters": rope, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 2}
    model = model_class(config(text_config=text, vision_config=vision, tie_word_embeddings=True, **IDS, attn_implementation=loading.best_attention()))
    model.generation_config = GenerationConfig(eos_token_id=[1, 2], pad_token_id=2)
    pictures = Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, size={"shortest_edge": 16 * 16, "longest_edge": 32 * 32})
    return model, loading.stills(processor_class)(image_processor=pictures, tokenizer=tokenizer, chat_template=CHAT)
