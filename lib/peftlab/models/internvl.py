"""InternVL3 (Zhu et al. 2025, https://arxiv.org/abs/2504.10479): InternViT on a picture's tiles, a pixel shuffle with an MLP, Qwen2.5."""

from typing import Any

from transformers import GenerationConfig, InternVLConfig, InternVLForConditionalGeneration, InternVLProcessor, InternVLVisionConfig, Qwen2Config
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from peftlab import loading
from peftlab.models import Loaded, Towers

TOWERS = Towers()
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<IMG_CONTEXT>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"]
NAMED = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"}


def load(run: Any) -> Loaded:
    """The model of `run.model`, from the hub or at random."""
    return loading.load(run, TOWERS, processor=InternVLProcessor, tiny=tiny)


def tiny(name: str) -> tuple[InternVLForConditionalGeneration, InternVLProcessor]:
    """InternViT on tiles of 16 pixels, four tokens a tile, up to four tiles beside the whole picture; an LLM of two layers."""
    tokenizer = loading.byte_tokenizer(SPECIAL, eos="<|im_end|>", pad="<|endoftext|>", **NAMED)
    vision = InternVLVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=[16, 16], patch_size=[4, 4])
    text = Qwen2Config(vocab_size=len(tokenizer), **loading.TINY, bos_token_id=None, eos_token_id=1, pad_token_id=2)
    model = InternVLForConditionalGeneration(
        InternVLConfig(vision_config=vision, text_config=text, image_token_id=5, image_seq_length=4, attn_implementation=loading.best_attention())
    )
    model.generation_config = GenerationConfig(eos_token_id=[1, 2], pad_token_id=2)
    pictures = GotOcr2ImageProcessorPil(size={"height": 16, "width": 16}, crop_to_patches=True, max_patches=4)
    processor = loading.stills(InternVLProcessor)(image_processor=pictures, tokenizer=tokenizer, image_seq_length=4, chat_template=CHAT)
    return model, processor
