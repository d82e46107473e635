"""A LLaVA of a few thousand weights, built here: no download, no project model needed."""

import pytest
import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from peftlab.models import Loaded, Towers

TOWERS = Towers(
    vision="model.vision_tower",
    connector="model.multi_modal_projector",
    llm="model.language_model",
    layer="model.language_model.layers.{i}",
    attn=tuple(f"self_attn.{n}_proj" for n in "qkvo"),
    mlp=("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
)
IMAGE = 90  # the image token's id
IMAGE_TOKENS = 4


def llava(dtype: torch.dtype = torch.float32) -> LlavaForConditionalGeneration:
    """A frozen LLaVA in eval mode: CLIP 8x8 pixels in 4 patches, MLP connector, LLaMA of 2 layers, width 32, 4 heads, 2 for k and v."""
    text = LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=128, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )
    vision = CLIPVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4)
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE, image_token_id=IMAGE, image_seq_length=IMAGE_TOKENS,
        tie_word_embeddings=True, vision_feature_layer=-1, pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2) if parameter.dim() > 1 else None
    return model.to(dtype).eval().requires_grad_(False)
