"""Cards of the methods: what each trains, its size and learning rate, what it cannot do."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class MethodCard:
    """A method as it is compared.

    ``size_name`` is what `run.size` means ("rank", "bottleneck", "tokens") or None where the method has none; ``size`` its
    default on the pocket tier, ``size_paper`` that of Zhou et al. 2024; ``lr`` the default learning rate (of those of
    notebooks/grids/lr.yaml, the one with the lowest validation loss), ``lr_paper`` theirs; ``identity`` whether the attached model equals the base before
    training; ``quantisations`` the precisions of the base it can be attached to; ``connectors`` the connector states that
    differ for it; ``module`` the file that implements it; ``paper`` a key in report/references.bib.
    """

    name: str
    label: str
    paper: str | None
    size_name: str | None
    size: int | None
    size_paper: int | None
    lr: float | None
    lr_paper: float | None
    identity: bool
    connectors: tuple[str, ...] = ("frozen", "tuned")
    quantisations: tuple[str, ...] = ("none", "nf4")


METHODS: dict[str, MethodCard] = {
    card.name: card
    for card in (
        MethodCard("none", "Untouched base", None, None, None, None, None, None, True, connectors=("frozen",)),
        MethodCard("connector", "Connector only", "liu2024llava15", None, None, None, None, None, True, connectors=("tuned",)),
        MethodCard("full", "Full fine-tuning", None, None, None, None, 5e-5, 2e-5, True, quantisations=("none",)),
        MethodCard("lora", "LoRA", "hu2022lora", "rank", 16, 128, 1e-3, 2e-4, True),
        MethodCard("ia3", "(IA)³", "liu2022ia3", None, None, None, 1e-2, 2e-4, True),
        MethodCard("adapter", "Adapter", "houlsby2019adapter", "bottleneck", 36, 256, 5e-4, 5e-5, False),
        MethodCard("prefix", "Prefix-Tuning", "li2021prefix", "tokens", 20, 20, 1e-2, 1e-5, False),
    )
}

# What truly cannot work, by method and model family, and why: a run of it is refused before it starts.
REFUSED: dict[tuple[str, str], str] = {
    ("prefix", "gemma"): "when it answers, peft drops the marks of a picture's tokens, so they would no longer see each other in both directions",
}

CONNECTOR_LR = 1e-4  # pocket default of the connector's own parameter group; Zhou et al. use 2e-5
CONNECTOR_LR_PAPER = 2e-5


def card(name: str) -> MethodCard:
    """The card of method `name`; raises ValueError naming the choices."""
    if name not in METHODS:
        raise ValueError(f"method is {name!r}; choose one of {', '.join(METHODS)} (lib/peftlab/methods/__init__.py)")
    return METHODS[name]


def attach(loaded: Any, run: Any) -> Any:
    """Attach `run.method` to a `models.Loaded`: returns the model to train.

    Afterwards exactly the method's own parameters, and the connector's where ``run.connector == "tuned"``, require a
    gradient, and they are fp32 (bf16 steps would be rounded away); everything else is frozen as loaded. A model takes one attachment: load it again
    for the next. The start values depend on ``run.seed`` alone and no random state is left behind.
    """
    model = import_module(f"peftlab.methods.{card(run.method).name}").attach(loaded, run)
    for name, parameter in named_parameters(model):
        trains = is_trained(name, loaded.towers, run)
        parameter.requires_grad_(trains)
        if trains:
            parameter.data = parameter.data.float()
    return model


def is_trained(name: str, towers: Any, run: Any) -> bool:
    """Whether the parameter `name` (as `named_parameters` gives it) trains in this run: the method's own or the tuned connector's."""
    if towers.in_connector(name):
        return run.connector == "tuned"
    return import_module(f"peftlab.methods.{card(run.method).name}").own(name, towers)


def named_parameters(model: Any) -> Iterator[tuple[str, Any]]:
    """A model's parameters, each once, named by their path in the bare model whatever peft has wrapped around it."""
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    wrapping = next(name for name, module in model.named_modules() if module is bare)
    for name, parameter in model.named_parameters():
        yield name.removeprefix(f"{wrapping}."), parameter


def targets(towers: Any, names: Iterable[str]) -> str:
    """A regular expression (for peft's ``target_modules``) that matches `names` in every LLM block by full path and nothing else."""
    block = re.escape(towers.layer).replace(re.escape("{i}"), r"\d+")
    return rf"{block}\.({'|'.join(re.escape(name) for name in names)})"
