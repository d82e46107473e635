"""LLaVA-OneVision (Li et al. 2024, https://arxiv.org/abs/2408.03326): SigLIP on a picture and its crops, a two-layer MLP, Qwen2.

The vector that ends each row of crops is a parameter of its own; it counts as the connector's.
"""

from typing import Any

from transformers import (
    GenerationConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
    Qwen2Config,
    SiglipVisionConfig,
)
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

from peftlab import loading
from peftlab.models import Loaded, Towers

TOWERS = Towers(connector=("model.multi_modal_projector", "model.image_newline"))
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CROPS = [[8, 8], [8, 16], [16, 8], [16, 16]]  # of the tiny model: heights and widths a picture may be resized to, in pixels


def load(run: Any) -> Loaded:
    """The model of `run.model`, from the hub or at random."""
    return loading.load(run, TOWERS, processor=LlavaOnevisionProcessor, tiny=tiny)


def tiny(name: str) -> tuple[LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor]:
    """SigLIP on crops of 8 pixels in four patches, up to four crops beside the whole picture; an LLM of two layers."""
    tokenizer = loading.byte_tokenizer(["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<image>", "<video>"], eos="<|im_end|>", pad="<|endoftext|>")
    vision = SiglipVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4, vision_use_head=False
    )  # fmt: skip
    text = Qwen2Config(vocab_size=len(tokenizer), **loading.TINY, bos_token_id=None, eos_token_id=1, pad_token_id=2)
    config = LlavaOnevisionConfig(
        vision_config=vision, text_config=text, image_token_index=3, video_token_index=4, image_grid_pinpoints=CROPS, tie_word_embeddings=True,
        attn_implementation=loading.best_attention(),
    )  # fmt: skip
    model = LlavaOnevisionForConditionalGeneration(config)
    model.generation_config = GenerationConfig(eos_token_id=1, pad_token_id=2)
    pictures = LlavaOnevisionImageProcessorPil(size={"height": 8, "width": 8}, image_grid_pinpoints=CROPS)
    processor = loading.stills(LlavaOnevisionProcessor)(
        image_processor=pictures, tokenizer=tokenizer, num_image_tokens=4, vision_feature_select_strategy="full", chat_template=CHAT
    )
    return model, processor
