"""Adapter: small tanh bottlenecks beside or in series with the layers of the LLM's blocks, as a tuner for current peft.

    h <- h + up(tanh(down(dropout(h))))        down: d -> r, up: r -> d, no biases, both drawn from N(0, 0.02)

Where h is taken and added is the placement:

- ``zhou2024``: on the inputs of gate and up and on the output of down (of q, k, v and of o at the location attn). Zhou et al. 2024,
  https://arxiv.org/abs/2406.05130, after LLM-Adapters, https://arxiv.org/abs/2304.01933. Neither matrix is zero at first, so the
  model is not the base before training.
- ``houlsby``: on the outputs of attention and MLP. Houlsby et al. 2019, https://arxiv.org/abs/1902.00751.
- ``pfeiffer``: on the output of the MLP. Pfeiffer et al. 2021, https://arxiv.org/abs/2005.00247.
- ``parallel``: from the MLP's input to its output. He et al. 2022, https://arxiv.org/abs/2110.04366.

The last three start with up at zero, and so as the base. Importing this file registers the tuner: ``get_peft_model``,
``save_pretrained`` and ``PeftModel.from_pretrained`` then know `BottleneckConfig`, also over bitsandbytes' 4-bit linears; several
adapters live on one model, switched and disabled as any of peft's. Nothing can be merged: a bottleneck is not linear.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftConfig, PeftType, get_peft_model
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import register_peft_method
from torch import nn

from peftlab import methods
from peftlab.dropout import SparseDropout
from peftlab.models import Loaded
from peftlab.run import Run

# Which modules of a block get a bottleneck, and on which side of them.
PLACEMENTS: dict[str, dict[str, str]] = {
    "zhou2024": {"gate_proj": "input", "up_proj": "input", "down_proj": "output", "q_proj": "input", "k_proj": "input", "v_proj": "input", "o_proj": "output"},
    "houlsby": {"o_proj": "output", "down_proj": "output"},
    "pfeiffer": {"down_proj": "output"},
    "parallel": {"mlp": "parallel"},
}
UNASKED = {"zhou2024": {"gate_proj", "up_proj", "down_proj"}}  # targets where a configuration names none and they are not all


def attach(loaded: Loaded, run: Run) -> nn.Module:
    """Wrap the model by peft with bottlenecks of ``run.size``; the placement is in the method's name, zhou2024 without one."""
    placement = run.method.partition("_")[2] or "zhou2024"
    if placement == "zhou2024":
        names = methods.linears(loaded.towers, run)
    else:
        known = (*loaded.towers.attn, *loaded.towers.mlp, *{name.rpartition(".")[0] for name in loaded.towers.mlp})
        names = tuple(name for name in known if name.rpartition(".")[2] in PLACEMENTS[placement])
    config = BottleneckConfig(
        r=run.resolved()["size"], target_modules=methods.targets(loaded.towers, names), placement=placement, zero_up=placement != "zhou2024"
    )
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        model = get_peft_model(loaded.model, config)
    for module in model.modules():
        if isinstance(module, BottleneckLayer):
            module.bottleneck_dropout["default"] = SparseDropout(config.dropout)
    return model


def own(name: str, loaded: Loaded, run: Run) -> bool:
    """Whether parameter `name` is a bottleneck's matrix, in the LLM."""
    return name.startswith(f"{loaded.towers.llm}.") and (".bottleneck_down." in name or ".bottleneck_up." in name)


# ---------------------------------------------------------------- the tuner


@dataclass
class BottleneckConfig(PeftConfig):
    """Configuration of `BottleneckModel`.

    ``target_modules`` is a regular expression over full module paths, or a list of path endings; the side of each target
    follows from its last name and ``placement``, a key of `PLACEMENTS`. Without it, every module of the placement's names.
    """

    r: int = field(default=64, metadata={"help": "width of the bottleneck"})
    target_modules: str | list[str] | None = field(default=None, metadata={"help": "linears to adapt: a regex or path endings"})
    exclude_modules: str | list[str] | None = field(default=None, metadata={"help": "linears to leave: a regex or path endings"})
    placement: str = field(default="zhou2024", metadata={"help": "key of PLACEMENTS"})
    dropout: float = field(default=0.05, metadata={"help": "on the bottleneck's input"})
    init_std: float = field(default=0.02, metadata={"help": "of both matrices' normal start values"})
    zero_up: bool = field(default=False, metadata={"help": "up starts at zero: the model is the base at first"})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = PeftType.BOTTLENECK
        if self.placement not in PLACEMENTS:
            raise ValueError(f"placement is {self.placement!r}; choose one of {', '.join(PLACEMENTS)} (lib/peftlab/methods/adapter.py)")
        if self.r < 1:
            raise ValueError(f"r is {self.r}; a bottleneck is at least 1 wide")
        self.target_modules = set(self.target_modules) if isinstance(self.target_modules, list) else self.target_modules
        self.exclude_modules = set(self.exclude_modules) if isinstance(self.exclude_modules, list) else self.exclude_modules


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """A module with a bottleneck on its input, on its output, or from the one to the other (parallel).

    On an input or an output the module is a linear layer, in full precision or 4-bit; in parallel it is any that keeps the width.
    """

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    other_param_names = ("bottleneck_dropout",)

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: BottleneckConfig, side: str) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.side = side
        self.bottleneck_down, self.bottleneck_up, self.bottleneck_dropout = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def update_layer(self, adapter_name: str, config: BottleneckConfig) -> None:
        """Add an adapter: start values are drawn in fp32, then moved to the base layer's device (and dtype, by peft)."""
        base = self.get_base_layer()
        first = base if isinstance(base, nn.Linear) else next(module for module in base.modules() if isinstance(module, nn.Linear))
        width = first.out_features if self.side == "output" else first.in_features
        down, up = nn.Linear(width, config.r, bias=False), nn.Linear(config.r, width, bias=False)
        for linear in (down, up):
            nn.init.normal_(linear.weight, std=config.init_std)
        if config.zero_up:
            nn.init.zeros_(up.weight)
        self.bottleneck_down[adapter_name], self.bottleneck_up[adapter_name] = down, up
        self.bottleneck_dropout[adapter_name] = nn.Dropout(config.dropout)
        self._move_adapter_to_device_of_base_layer(adapter_name, device=first.weight.device)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """(..., in_features) -> (..., out_features)."""
        if self.disable_adapters:
            return self.base_layer(x, *args, **kwargs)
        if self.side == "input":
            return self.base_layer(self._through(x), *args, **kwargs)
        if self.side == "parallel":
            return self.base_layer(x, *args, **kwargs) + (self._through(x) - x)
        return self._through(self.base_layer(x, *args, **kwargs))

    def _through(self, x: torch.Tensor) -> torch.Tensor:
        for name in self.active_adapters:
            if name in self.bottleneck_down:
                down, up, dropout = self.bottleneck_down[name], self.bottleneck_up[name], self.bottleneck_dropout[name]
                h = x if torch.is_autocast_enabled(x.device.type) else self._cast_input_dtype(x, down.weight.dtype)
                x = x + up(torch.tanh(down(dropout(h)))).to(x.dtype)
        return x

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Always raises ValueError: a bottleneck is not linear."""
        raise ValueError("a bottleneck adapter cannot be merged into a linear layer: evaluate it attached")


class BottleneckModel(BaseTuner):
    """The tuner that peft makes of a `BottleneckConfig`."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: dict[str, list[str]] = {}

    def _prepare_adapter_config(self, peft_config: BottleneckConfig, model_config: dict[str, Any]) -> BottleneckConfig:
        if peft_config.target_modules is None:
            peft_config.target_modules = set(UNASKED.get(peft_config.placement, PLACEMENTS[peft_config.placement]))
        return peft_config

    def _create_and_replace(
        self, peft_config: BottleneckConfig, adapter_name: str, target: nn.Module, target_name: str, parent: nn.Module, current_key: str, **_: Any
    ) -> None:
        side = PLACEMENTS[peft_config.placement].get(target_name)
        if side is None:
            raise ValueError(f"{current_key} is targeted, but placement {peft_config.placement} has a side only for {', '.join(PLACEMENTS[peft_config.placement])}")
        if isinstance(target, BottleneckLayer):
            target.update_layer(adapter_name, peft_config)
        elif isinstance(target, nn.Linear) or side == "parallel":
            layer = BottleneckLayer(target, adapter_name, peft_config, side)
            if adapter_name not in self.active_adapters:  # another adapter trains only once it is active
                layer.requires_grad_(False)
            self._replace_module(parent, target_name, layer, target)
        else:
            raise ValueError(f"{current_key} is a {type(target).__name__}; a bottleneck adapter attaches to nn.Linear and its subclasses")


def _register() -> None:
    """Tell peft of the tuner. Its names of methods are a closed enum, so one is added first."""
    if "BOTTLENECK" in PeftType.__members__:
        return
    member = str.__new__(PeftType, "BOTTLENECK")
    member._name_, member._value_, member._sort_order_ = "BOTTLENECK", "BOTTLENECK", len(PeftType)
    type.__setattr__(PeftType, "BOTTLENECK", member)
    PeftType._member_names_.append("BOTTLENECK")
    PeftType._member_map_["BOTTLENECK"] = PeftType._value2member_map_["BOTTLENECK"] = member
    register_peft_method(name="bottleneck", config_cls=BottleneckConfig, model_cls=BottleneckModel)


_register()
