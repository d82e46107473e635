"""Methods that peft has ready: each a configuration, the names of what it trains, and nothing of ours.

A row of `VARIANTS` says how a method is configured at a size and which parameters are its own; what it costs, cannot do and who
wrote it stands in its card. Start values are drawn from the run's seed, the random bases of VeRA, RandLoRA and FourierFT too.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from peft import (
    FourierFTConfig,
    HRAConfig,
    LNTuningConfig,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    MissConfig,
    OFTConfig,
    PeftConfig,
    RandLoraConfig,
    VeraConfig,
    get_peft_model,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from peftlab import methods
from peftlab.models import Loaded, Towers
from peftlab.run import Run

LORA = (".lora_A.", ".lora_B.")


@dataclass(frozen=True)
class Variant:
    """How peft is configured for a size, the targeted paths and a seed, and the marks of the method's own parameters."""

    config: Callable[[int, str, int], PeftConfig]
    own: tuple[str, ...]


VARIANTS: dict[str, Variant] = {
    "dora": Variant(
        lambda r, paths, seed: LoraConfig(r=r, lora_alpha=2 * r, lora_dropout=0.05, use_dora=True, target_modules=paths),
        (*LORA, ".lora_magnitude_vector."),
    ),
    "rslora": Variant(lambda r, paths, seed: LoraConfig(r=r, lora_alpha=16, lora_dropout=0.05, use_rslora=True, target_modules=paths), LORA),
    "pissa": Variant(lambda r, paths, seed: LoraConfig(r=r, lora_alpha=r, lora_dropout=0.0, init_lora_weights="pissa", target_modules=paths), LORA),
    "vera": Variant(
        lambda r, paths, seed: VeraConfig(r=r, d_initial=0.1, vera_dropout=0.0, projection_prng_key=seed, save_projection=False, target_modules=paths),
        (".vera_lambda_b.", ".vera_lambda_d."),
    ),
    "oft": Variant(lambda size, paths, seed: OFTConfig(oft_block_size=size, use_cayley_neumann=True, target_modules=paths), (".oft_R.",)),
    "hra": Variant(lambda r, paths, seed: HRAConfig(r=r, target_modules=paths), (".hra_u.",)),
    "loha": Variant(lambda r, paths, seed: LoHaConfig(r=r, alpha=r, target_modules=paths), (".hada_",)),
    "lokr": Variant(lambda r, paths, seed: LoKrConfig(r=r, alpha=r, target_modules=paths), (".lokr_",)),
    "miss": Variant(lambda r, paths, seed: MissConfig(r=r, target_modules=paths), (".miss_block.",)),
    "randlora": Variant(
        lambda r, paths, seed: RandLoraConfig(r=r, randlora_alpha=20 * r, projection_prng_key=seed, save_projection=False, target_modules=paths),
        (".randlora_lambda.", ".randlora_gamma."),
    ),
    "fourierft": Variant(
        lambda n, paths, seed: FourierFTConfig(n_frequency=n, scaling=300.0, random_loc_seed=seed, init_weights=True, target_modules=paths), (".fourierft_spectrum.",)
    ),
    "ln_tuning": Variant(lambda _, paths, seed: LNTuningConfig(target_modules=paths), (".ln_tuning_layers.",)),
}


def attach(loaded: Loaded, run: Run) -> nn.Module:
    """Wrap the model by peft as the row of `VARIANTS` says; activations are not cast to the fp32 of what trains.

    Raises ValueError where peft takes another size for OFT's blocks than the one given, since a layer's width is no multiple of it.
    """
    placed = bool(methods.card(run.method).locations)
    paths = methods.targets(loaded.towers, methods.linears(loaded.towers, run)) if placed else norms(loaded.towers)
    config = VARIANTS[run.method].config(run.resolved()["size"], paths, run.seed)
    if run.method == "pissa" and next(loaded.model.parameters()).is_meta:
        config.init_lora_weights = True  # without weights there are no leading directions; the shapes are the same
    with torch.random.fork_rng():
        torch.manual_seed(run.seed)
        model = get_peft_model(loaded.model, config)
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.cast_input_dtype_enabled = run.precision == "fp32"  # in bf16, autocast casts what trains instead
    taken = {module.oft_block_size["default"] for module in model.modules() if hasattr(module, "oft_block_size")} - {config.oft_block_size if run.method == "oft" else 0}
    if taken and not next(loaded.model.parameters()).is_meta:
        raise ValueError(f"size is {config.oft_block_size}, but a block of OFT divides the width of its layer: peft would take {', '.join(map(str, sorted(taken)))} in some; give a size that divides all widths")
    return model


def own(name: str, loaded: Loaded, run: Run) -> bool:
    """Whether parameter `name` carries the method's marks, in the LLM."""
    return name.startswith(f"{loaded.towers.llm}.") and any(mark in name for mark in VARIANTS[run.method].own)


def norms(towers: Towers) -> str:
    """A regular expression for every normalisation of the LLM, by full path."""
    return rf"{re.escape(towers.llm)}\.(layers\.\d+\.)?(\w+\.)?\w*norm\w*"
