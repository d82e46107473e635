"""PaliGemma 2 and Gemma 3: SigLIP, one linear layer, Gemma 2 or Gemma 3; a picture's tokens see each other in both directions.

Steiner et al. 2024, https://arxiv.org/abs/2412.03555; Gemma Team 2025, https://arxiv.org/abs/2503.19786. PaliGemma also reads its
prompt in both directions and only its answer word by word, and has no chat template: the question is its prompt, one turn.
"""

from typing import Any

import torch
from transformers import (
    Gemma2Config,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3Processor,
    Gemma3TextConfig,
    GenerationConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedModel,
    SiglipVisionConfig,
)
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from peftlab import loading
from peftlab.models import Loaded, Towers

TOWERS = Towers()
PROMPT = "{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
CHAT = (
    "<bos>{% for message in messages %}<start_of_turn>{{ 'model' if message['role'] == 'assistant' else 'user' }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<start_of_image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
SPECIAL = ["<pad>", "<eos>", "<bos>"]
TURNS = ["<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>", "<image_soft_token>"]
IMAGES = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}


def load(run: Any) -> Loaded:
    """The model of `run.model`, from the hub or at random."""
    if "paligemma" not in run.model:
        return loading.load(run, TOWERS, processor=Gemma3Processor, tiny=tiny)
    # Gemma 2 soft-caps its attention, which PyTorch's fused attention cannot; an answer's tokens are told apart by their type.
    loaded = loading.load(run, TOWERS, processor=PaliGemmaProcessor, tiny=tiny, answer_type=1, attention="eager")
    loaded.processor.chat_template = loaded.processor.chat_template or PROMPT
    return loaded


def tiny(name: str) -> tuple[PreTrainedModel, Any]:
    """SigLIP with four tokens a picture; an LLM of two layers whose heads are wider than its width divided by them."""
    vision = SiglipVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=8,
        patch_size=4 if name == "tiny-paligemma2" else 2, vision_use_head=False,
    )  # fmt: skip
    special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    text = {**loading.TINY, "head_dim": 16, "query_pre_attn_scalar": 16, **special}
    if name == "tiny-paligemma2":
        tokenizer = loading.byte_tokenizer([*SPECIAL, "<image>"], bos="<bos>", eos="<eos>", pad="<pad>", image_token="<image>")
        llm = Gemma2Config(vocab_size=len(tokenizer), **text)
        config = PaliGemmaConfig(vision_config=vision, text_config=llm, image_token_index=3, projection_dim=32, attn_implementation="eager")
        model: PreTrainedModel = PaliGemmaForConditionalGeneration(config)
        pictures = SiglipImageProcessorPil(size={"height": 8, "width": 8})
        pictures.image_seq_length = 4
        processor: Any = PaliGemmaProcessor(image_processor=pictures, tokenizer=tokenizer, chat_template=PROMPT)
    else:
        tokenizer = loading.byte_tokenizer([*SPECIAL, *TURNS], bos="<bos>", eos="<eos>", pad="<pad>", **IMAGES)
        llm = Gemma3TextConfig(vocab_size=len(tokenizer), layer_types=["sliding_attention", "full_attention"], **text)
        images = {"boi_token_index": 5, "eoi_token_index": 6, "image_token_index": 7, "mm_tokens_per_image": 4}
        model = Gemma3ForConditionalGeneration(Gemma3Config(vision_config=vision, text_config=llm, attn_implementation=loading.best_attention(), **images))
        torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight, std=0.02)  # zeros otherwise: blind
        pictures = Gemma3ImageProcessorPil(size={"height": 8, "width": 8})
        processor = Gemma3Processor(image_processor=pictures, tokenizer=tokenizer, image_seq_length=4, chat_template=CHAT)
    model.generation_config = GenerationConfig(**special)
    return model, processor
