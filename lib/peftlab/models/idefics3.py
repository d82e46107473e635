"""Idefics3 and SmolVLM2: SigLIP on a picture and its tiles, a pixel shuffle with one linear layer, LLaMA or SmolLM2.

Laurençon et al. 2024, https://arxiv.org/abs/2408.12637; Marafioti et al. 2025, https://arxiv.org/abs/2504.05299. SmolVLM2's own
processor needs packages for videos; on pictures it says what Idefics3's says, which is used for both.
"""

from typing import Any

from transformers import (
    GenerationConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    LlamaConfig,
    PreTrainedModel,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from peftlab import loading
from peftlab.models import Loaded, Towers

TOWERS = Towers(
    vision="model.vision_model",
    connector=("model.connector",),
    llm="model.text_model",
    layer="model.text_model.layers.{i}",
)
CHAT = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}:"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
SPECIAL = ["<|im_start|>", "<end_of_utterance>", "<pad>", "<image>", "<fake_token_around_image>", "<global-img>"]
# Published configurations of SmolVLM2: the LLM's, the vision tower's, and how many patches a side become one token.
BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 512, "patch_size": 16}
SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16, "image_size": 384, "patch_size": 14}
SIZES: dict[str, dict[str, Any]] = {
    "smolvlm2-256m": {"text": (576, 1536, 30, 9, 3), "vision": BASE, "scale_factor": 4},
    "smolvlm2-500m": {"text": (960, 2560, 32, 15, 5), "vision": BASE, "scale_factor": 4},
    "smolvlm2-2.2b": {"text": (2048, 8192, 24, 32, 32), "vision": SO400M, "scale_factor": 3},
}
VERSIONS = {
    "tiny-idefics3": (Idefics3Config, Idefics3ForConditionalGeneration),
    "tiny-smolvlm2": (SmolVLMConfig, SmolVLMForConditionalGeneration),
}


def load(run: Any) -> Loaded:
    """The model of `run.model`, from the hub or at random.

    SmolVLM puts a picture's features among the words' in the precision of its first parameter, which is frozen: words that train, in fp32, are brought to it.
    """
    loaded = loading.load(run, TOWERS, processor=Idefics3Processor, tiny=tiny)
    if isinstance(loaded.model, SmolVLMForConditionalGeneration):
        inner = loaded.model.model
        loaded.model.get_input_embeddings().register_forward_hook(lambda _, __, words: words.to(inner.dtype))
    return loaded


def skeleton(name: str) -> Loaded:
    """A SmolVLM2 on the meta device."""
    size = loading.published(name, SIZES)
    wide, inner, layers, heads, shared = size["text"]
    text = LlamaConfig(
        vocab_size=49280, hidden_size=wide, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=shared,
        pad_token_id=2, tie_word_embeddings=False,
    )  # fmt: skip
    config = SmolVLMConfig(vision_config=size["vision"], text_config=text, scale_factor=size["scale_factor"], tie_word_embeddings=False)
    return loading.hollow(SmolVLMForConditionalGeneration, config, TOWERS)


def tiny(name: str) -> tuple[PreTrainedModel, Idefics3Processor]:
    """SigLIP on tiles of 16 pixels, four tokens a tile, up to four tiles beside the whole picture; an LLM of two layers."""
    config, model_class = VERSIONS[name]
    tiles = [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
    tokenizer = loading.byte_tokenizer([*SPECIAL, *tiles], bos="<|im_start|>", eos="<end_of_utterance>", pad="<pad>")
    text = LlamaConfig(vocab_size=len(tokenizer), **loading.TINY, bos_token_id=0, eos_token_id=1, pad_token_id=2)
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 4}
    model = model_class(
        config(vision_config=vision, text_config=text, image_token_id=3, scale_factor=2, tie_word_embeddings=True, attn_implementation=loading.best_attention())
    )
    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=1, pad_token_id=2)
    pictures = Idefics3ImageProcessorPil(size={"longest_edge": 32}, max_image_size={"longest_edge": 16})
    return model, Idefics3Processor(image_processor=pictures, tokenizer=tokenizer, image_seq_len=4, chat_template=CHAT)
