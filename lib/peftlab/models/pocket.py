"""The pocket family: LLaVA-1.5's architecture with SmolLM2-135M-Instruct and a frozen EfficientNet-Lite0.

The model is transformers' own `LlavaForConditionalGeneration`; only its vision tower is ours, and in two of the three the connector, so
what is written for LLaVA runs here and the other way round. A pocket base is the packages' weights plus a delta in data/bases/<name>/:
the connector, and low-rank updates of the LLM that are merged in fp32 before the weights are cast.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from efficientnet_lite_pytorch import EfficientNet
from huggingface_hub.dataclasses import strict
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from peftlab import assets, connectors, loading, methods, models, paths
from peftlab.models import Loaded, Towers, card

CELL = 32  # pixels


@dataclass(frozen=True)
class Shape:
    """How a model of the family takes in a picture: scaled to `cells` x `cells` cells of 32 pixels, given to the LLM as `tokens` x `tokens`.

    ``connector`` is ``mlp`` (LLaVA-1.5's, a token a cell), ``resampler`` (Qwen-VL's kind) or ``merger`` (Qwen2-VL's and SmolVLM's kind);
    ``rank`` that of the LLM's updates, such that the delta is at most 7 MB.
    """

    connector: str
    cells: int
    tokens: int
    rank: int


MLP, RESAMPLER, MERGER = Shape("mlp", 5, 5, 14), Shape("resampler", 5, 4, 10), Shape("merger", 6, 3, 14)
SHAPES = {"pocket-mlp": MLP, "pocket-resampler": RESAMPLER, "pocket-merger": MERGER, "tiny-mlp": MLP, "tiny-resampler": RESAMPLER, "tiny-merger": MERGER}
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
IMAGE_TOKEN = "<empty_output>"  # a reserved token of SmolLM2 that no text uses: the vocabulary stays as it is


class Lite0Config(PreTrainedConfig):
    """Configuration of `Lite0Tower`: `backbone` is ``lite0`` or ``tiny`` (one convolution, for tests)."""

    model_type = "peftlab_lite0"

    def __init__(self, backbone: str = "lite0", **kwargs: Any) -> None:
        self.backbone = backbone
        self.hidden_size = 1280 + 4 * 112 + 16 * 40 if backbone == "lite0" else 16
        super().__init__(**kwargs)


class Lite0Tower(PreTrainedModel):
    """EfficientNet-Lite0 as a vision tower: one token per 32-pixel cell, from three depths.

    A cell's token is the last map (1,280 channels) beside the 2 x 2 positions of the stride-16 map (112 each) and the 4 x 4 of
    the stride-8 map (40 each), every depth layer-normalised: the last map knows what a thing is, the earlier ones where its
    edges are, which counting, left/right and reading need. Always fp32 and in eval mode; features are rounded to bf16.
    """

    config_class = Lite0Config
    main_input_name = "pixel_values"
    _no_split_modules: list[str] = []

    def __init__(self, config: Lite0Config) -> None:
        super().__init__(config)
        self.net = EfficientNet.from_name("efficientnet-lite0") if config.backbone == "lite0" else nn.Conv2d(3, 16, CELL, CELL)
        self.feature_dtype = torch.float32  # what the connector is fed; `ready` sets it
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        return None  # weights come from the package, or stay as torch made them

    def train(self, mode: bool = True) -> "Lite0Tower":
        return super().train(False)

    @torch.no_grad()
    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, H/32 * W/32, hidden_size) in bf16; H and W multiples of 32."""
        x = pixels.float()
        if self.config.backbone == "tiny":
            return self.net.float()(x).flatten(2).transpose(1, 2).bfloat16()
        levels: list[torch.Tensor] = []
        x = self.net._swish(self.net._bn0(self.net._conv_stem(x)))
        for i, block in enumerate(self.net._blocks):
            x = block(x)
            if i in (4, 10):  # the last blocks at stride 8 (40 channels) and 16 (112 channels)
                levels.append(F.pixel_unshuffle(x, {4: 4, 10: 2}[i]))
        levels.append(self.net._swish(self.net._bn1(self.net._conv_head(x))))
        tokens = [level.flatten(2).transpose(1, 2) for level in reversed(levels)]  # (B, cells, channels) each
        return torch.cat([F.layer_norm(t, t.shape[-1:]) for t in tokens], dim=-1).bfloat16()

    def forward(self, pixel_values: torch.Tensor, **_: Any) -> BaseModelOutput:
        """`pixel_values` (B, 3, H, W), or features that `encode` made before, (B, cells, hidden_size)."""
        features = pixel_values if pixel_values.ndim == 3 else self.encode(pixel_values)
        features = features.to(self.feature_dtype)
        return BaseModelOutput(last_hidden_state=features, hidden_states=(features,))


@strict
class PocketConfig(LlavaConfig):
    """LLaVA's configuration with a connector of ours: its name, and the sides of the grids of cells and tokens."""

    model_type = "peftlab_pocket"

    connector: str = "resampler"
    cells: int = 5
    tokens: int = 4


class PocketForConditionalGeneration(LlavaForConditionalGeneration):
    """LLaVA with one of `connectors` in its connector's place. Loads by transformers' own classes once this module is imported."""

    config_class = PocketConfig

    def __init__(self, config: PocketConfig) -> None:
        super().__init__(config)
        self.model.multi_modal_projector = _fresh(config)


AutoConfig.register(Lite0Config.model_type, Lite0Config)
AutoModel.register(Lite0Config, Lite0Tower)
AutoConfig.register(PocketConfig.model_type, PocketConfig)
AutoModelForImageTextToText.register(PocketConfig, PocketForConditionalGeneration)

TOWERS = Towers()


def convert() -> Path:
    """SmolLM2 as safetensors and tokenizer, converted once from the package's GGUF (20-30 s); returns the folder."""

    def make(file: Path, folder: Path) -> None:
        source = file.parent
        llm = AutoModelForCausalLM.from_pretrained(source, gguf_file=file.name, dtype=torch.float32)
        llm.hf_quantizer = None
        del llm.config.quantization_config
        llm.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
        llm.save_pretrained(folder)
        AutoTokenizer.from_pretrained(source, gguf_file=file.name).save_pretrained(folder)

    return assets.converted("smollm2", make)


def load(run: Any) -> Loaded:
    """The base of `run.model` with its delta merged; raises FileNotFoundError where the delta was never built."""
    if card(run.model).source == "random weights":
        loaded = tiny(run.model, seed=0)
    else:
        folder, weights = paths.bases() / run.model, models.delta(run.model)
        if weights is None:
            raise FileNotFoundError(f"{run.model} has no delta in {folder}: build it with notebooks/00_build_base.ipynb")
        loaded = assemble(run.model)
        merge(loaded.model, safetensors.torch.load(weights), json.loads((folder / "delta.json").read_text()))
    return ready(loaded, precision=run.precision, quantisation=run.quantisation)


SMOLLM2 = {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3}
LLMS = {name: SMOLLM2 for name in ("pocket-mlp", "pocket-resampler", "pocket-merger")}


def skeleton(name: str) -> Loaded:
    """A pocket base on the meta device: SmolLM2-135M, Lite0 and the connector at full size, without weights."""
    llm = LlamaConfig(tie_word_embeddings=True, **loading.published(name, LLMS))
    config = _config(SHAPES[name], llm, Lite0Config(), image_token_id=0)
    return loading.hollow(_class(config), config, TOWERS)


def ready(loaded: Loaded, *, precision: str, quantisation: str) -> Loaded:
    """Cast, quantise and freeze: vision tower fp32, the rest in `precision`, the LLM's block linears packed where asked.

    Parameters are cast and buffers are not: rounded to bf16, the rotary frequencies would misplace tokens.
    """
    model = loaded.model
    held = loading.cast(model, precision)
    model.model.vision_tower.float().feature_dtype = held
    loading.quantise(model, loaded.towers, quantisation)
    loading.contiguous(model.lm_head)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Loaded(loading.settle(model.to(device)), loaded.processor, loaded.towers)


def assemble(name: str) -> Loaded:
    """The packages' weights in fp32 under a fresh connector, without any delta: what `00_build_base` starts from."""
    folder = convert()
    llm_config = LlamaConfig.from_pretrained(folder)
    config = _config(SHAPES[name], llm_config, Lite0Config(), image_token_id=AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids(IMAGE_TOKEN))
    with torch.device("meta"):
        model = _class(config)(config)
    llm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=loading.best_attention())
    model.model.language_model = llm.model
    model.lm_head = llm.lm_head
    tower = Lite0Tower(Lite0Config())
    tower.net.load_state_dict(torch.load(assets.lite0(), weights_only=True))
    model.model.vision_tower = tower
    model.model.multi_modal_projector = connector(model)
    model.generation_config = llm.generation_config
    return Loaded(model, _processor(SHAPES[name], AutoTokenizer.from_pretrained(folder)), TOWERS)


def connector(model: LlavaForConditionalGeneration, *, seed: int = 0) -> nn.Module:
    """A fresh connector of the kind that `model` has, a function of `seed` alone; fp32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = _fresh(model.config)
        for linear in (module for module in fresh.modules() if isinstance(module, nn.Linear)):
            nn.init.normal_(linear.weight, std=linear.in_features**-0.5)
            nn.init.zeros_(linear.bias)
    return fresh


def grow(loaded: Loaded, *, rank: int, seed: int) -> nn.Module:
    """The model with low-rank updates (alpha = 2 r, no dropout) on q, v and down of every block, and they and the connector train.

    Stage 2 of a base: what it learns ships as the delta that `merge` adds.
    """
    names = (loaded.towers.attn[0], loaded.towers.attn[2], loaded.towers.mlp[2])
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=methods.targets(loaded.towers, names))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = get_peft_model(loaded.model, config)
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = False
    for name, parameter in methods.named_parameters(model):
        if ".lora_" in name or loaded.towers.in_connector(name):
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
    return model


def delta(model: nn.Module) -> dict[str, torch.Tensor]:
    """What a grown model learned, in bf16, under the names that `merge` reads."""
    return {
        name.replace(".lora_A.default.weight", ".A").replace(".lora_B.default.weight", ".B"): parameter.detach().bfloat16().contiguous()
        for name, parameter in methods.named_parameters(model)
        if parameter.requires_grad
    }


def merge(model: nn.Module, delta: dict[str, torch.Tensor], about: dict[str, Any]) -> None:
    """Add a base's delta in place, in fp32: connector tensors are set, ``<name>.A/.B`` pairs add scale * B @ A to <name>.weight."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in delta.items():
            if name in parameters:
                parameters[name].copy_(tensor.float())
            elif name.endswith(".A"):
                stem = name.removesuffix(".A")
                parameters[f"{stem}.weight"] += about["scale"] * delta[f"{stem}.B"].float() @ tensor.float()
            elif not name.endswith(".B"):
                raise ValueError(f"the delta holds {name}, which the model has not: it is for another model")


def tiny(name: str = "tiny-mlp", *, seed: int) -> Loaded:
    """The same architectures with random weights and a byte tokenizer: a few thousand parameters, no asset needed."""
    tokenizer = loading.byte_tokenizer(["<|im_start|>", "<|im_end|>", IMAGE_TOKEN], bos="<|im_start|>", eos="<|im_end|>", pad="<|im_end|>")
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, bos_token_id=0, eos_token_id=1, pad_token_id=1, attn_implementation=loading.best_attention(),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = _config(SHAPES[name], text, Lite0Config(backbone="tiny"), image_token_id=2)
        model = _class(config)(config)
    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=1, pad_token_id=1)
    return Loaded(model, _processor(SHAPES[name], tokenizer), TOWERS)


def _config(shape: Shape, text: LlamaConfig, vision: Lite0Config, *, image_token_id: int) -> LlavaConfig:
    values = dict(
        vision_config=vision, text_config=text, image_token_index=image_token_id, image_seq_length=shape.tokens**2,
        vision_feature_layer=-1, vision_feature_select_strategy="full", tie_word_embeddings=True,
    )  # fmt: skip
    if shape.connector == "mlp":
        return LlavaConfig(**values)
    return PocketConfig(**values, connector=shape.connector, cells=shape.cells, tokens=shape.tokens)


def _fresh(config: LlavaConfig) -> nn.Module:
    if not isinstance(config, PocketConfig):
        return LlavaMultiModalProjector(config)
    made = {"resampler": connectors.Resampler, "merger": connectors.Merger}[config.connector]
    return made(config.vision_config.hidden_size, config.text_config.hidden_size, cells=config.cells, tokens=config.tokens)


def _class(config: LlavaConfig) -> type[LlavaForConditionalGeneration]:
    return PocketForConditionalGeneration if isinstance(config, PocketConfig) else LlavaForConditionalGeneration


def _processor(shape: Shape, tokenizer: Any) -> LlavaProcessor:
    tokenizer.padding_side = "right"
    side = shape.cells * CELL
    pictures = CLIPImageProcessorPil(
        do_resize=True, size={"height": side, "width": side}, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return LlavaProcessor(
        image_processor=pictures, tokenizer=tokenizer, patch_size=side // shape.tokens, vision_feature_select_strategy="full",
        image_token=IMAGE_TOKEN, chat_template=CHAT.replace("<image>", IMAGE_TOKEN),
    )  # fmt: skip
