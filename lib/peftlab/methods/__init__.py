"""Cards of the methods: what each trains, its size and learning rate, what it cannot do."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any


QUANTISED = ("nf4", "nf4_single", "int8")  # what a base may be beside full precision


@dataclass(frozen=True)
class MethodCard:
    """A method as it is compared.

    ``group`` is core (the study's first methods), variant (of peft) or selective (full fine-tuning held near its start);
    ``size_name`` is what `run.size` means ("rank", "bottleneck", "tokens") or None where the method has none; ``size`` its default on
    the pocket tier, ``size_paper`` that of Zhou et al. 2024; ``lr`` the default learning rate (of the core methods: of those of
    notebooks/grids/lr.yaml, the one with the lowest validation loss; of the others what their authors recommend), ``lr_paper`` that of
    Zhou et al.; ``identity`` whether the attached model equals the base before training; ``merges`` whether what it learns could be
    added to the base's weights; ``quantisations`` the precisions of the base it can be attached to; ``connectors`` the connector states
    that differ for it; ``locations`` where in a block it can act, its default first (empty where it has no such choice); ``seeded`` whether
    frozen random parts are drawn from the run's seed and not stored; ``asleep`` marks of the parameters whose first gradient is zero, because what they are multiplied by starts at
    zero; ``layers`` whether `run.layers` limits it to the last blocks; ``checkpoints`` whether its blocks can be computed again in the backward
    pass (`run.checkpointing`); ``module`` the file that implements it (its own
    name's where None); ``paper`` a key in report/references.bib; ``cannot`` why it cannot be merged, or not attached to a packed base, in a
    sentence.
    """

    name: str
    label: str
    group: str = "core"
    paper: str | None = None
    size_name: str | None = None
    size: int | None = None
    size_paper: int | None = None
    lr: float | None = None
    lr_paper: float | None = None
    identity: bool = True
    merges: bool = True
    quantisations: tuple[str, ...] = ("none", *QUANTISED)
    connectors: tuple[str, ...] = ("frozen", "tuned")
    locations: tuple[str, ...] = ()
    seeded: bool = False
    asleep: tuple[str, ...] = ()
    layers: bool = False
    checkpoints: bool = True
    module: str | None = None
    cannot: str = ""


LINEARS = ("both", "attn", "mlp")
BENT = "Its bottleneck bends what passes through it, so it is not a change of weights."
TOKENS = "It adds to the sequence, not to the weights."
MATRICES = "What it does to a matrix has not been written for packed ones."


def _variant(name: str, label: str, paper: str, size_name: str | None, size: int | None, lr: float, **more: Any) -> MethodCard:
    return MethodCard(name, label, "variant", paper, size_name, size, lr=lr, **{"module": "variants", "locations": LINEARS, **more})


def _selective(name: str, label: str, paper: str | None, lr: float = 5e-5, **more: Any) -> MethodCard:
    return MethodCard(name, label, "selective", paper, lr=lr, quantisations=("none",), layers=True, module="selective", **more)


def _merged(name: str, label: str, paper: str) -> MethodCard:
    return MethodCard(
        name, label, "selective", paper, "rank", 16, lr=1e-3, locations=LINEARS, asleep=(".lora_A.",), quantisations=("none",), module="merged",
        cannot="It edits the base's matrices, which must be in full precision for that.",
    )  # fmt: skip


METHODS: dict[str, MethodCard] = {
    card.name: card
    for card in (
        MethodCard("none", "Untouched base", connectors=("frozen",)),
        MethodCard("connector", "Connector only", paper="liu2024llava15", connectors=("tuned",)),
        MethodCard("full", "Full fine-tuning", lr=1e-4, lr_paper=2e-5, quantisations=("none",)),
        MethodCard("lora", "LoRA", "core", "hu2022lora", "rank", 16, 128, 1e-3, 2e-4, locations=LINEARS, asleep=(".lora_A.",)),
        MethodCard("ia3", "(IA)³", "core", "liu2022ia3", None, None, None, 3e-2, 2e-4, locations=LINEARS),
        MethodCard("adapter", "Adapter", "core", "houlsby2019adapter", "bottleneck", 36, 256, 1e-3, 5e-5, identity=False, merges=False, locations=("mlp", "attn", "both"), cannot=BENT),
        MethodCard("prefix", "Prefix-Tuning", "core", "li2021prefix", "tokens", 20, 20, 1e-1, 1e-5, identity=False, merges=False, checkpoints=False, cannot=TOKENS),
        _variant("dora", "DoRA", "liu2024dora", "rank", 16, 1e-3, asleep=(".lora_A.",), quantisations=("none", "nf4", "nf4_single"), cannot="On a CPU peft (0.21.2) loses the scales of int8 weights when it reads their norms."),
        _variant("rslora", "rsLoRA", "kalajdzievski2023rslora", "rank", 16, 1e-3, asleep=(".lora_A.",)),
        _variant("pissa", "PiSSA", "meng2024pissa", "rank", 16, 1e-3, quantisations=("none",), cannot="It moves the base's leading directions into the update, so the base's weights must be in full precision."),
        _variant("lora_plus", "LoRA+", "hayou2024loraplus", "rank", 16, 5e-4, module="lora", asleep=(".lora_A.",)),
        _variant("lora_fa", "LoRA-FA", "zhang2023lorafa", "rank", 16, 1e-3, module="lora", seeded=True),
        _variant("adapter_houlsby", "Adapter (Houlsby)", "houlsby2019adapter", "bottleneck", 64, 1e-3, merges=False, module="adapter", locations=(), asleep=(".bottleneck_down.",), cannot=BENT),
        _variant("adapter_pfeiffer", "Adapter (Pfeiffer)", "pfeiffer2021adapterfusion", "bottleneck", 64, 1e-3, merges=False, module="adapter", locations=(), asleep=(".bottleneck_down.",), cannot=BENT),
        _variant("adapter_parallel", "Adapter (parallel)", "he2022unified", "bottleneck", 64, 1e-3, merges=False, module="adapter", locations=(), asleep=(".bottleneck_down.",), cannot=BENT),
        _variant("vera", "VeRA", "kopiczko2024vera", "rank", 256, 1e-2, seeded=True, asleep=(".vera_lambda_d.",)),
        _variant("oft", "OFT", "qiu2023oft", "block", 32, 1e-3),
        _variant("hra", "HRA", "yuan2024hra", "rank", 8, 1e-3, quantisations=("none",), cannot=MATRICES),
        _variant("loha", "LoHa", "hyeonwoo2022loha", "rank", 8, 1e-3, asleep=(".hada_w1_", ".hada_w2_a."), quantisations=("none",), cannot=MATRICES),
        _variant("lokr", "LoKr", "yeh2024lycoris", "rank", 8, 1e-3, asleep=(".lokr_w2",), quantisations=("none",), cannot=MATRICES),
        _variant("miss", "MiSS", "kang2025miss", "rank", 32, 1e-3),
        _variant("randlora", "RandLoRA", "albert2025randlora", "rank", 16, 1e-3, seeded=True, asleep=(".randlora_gamma.",)),
        _variant("fourierft", "FourierFT", "gao2024fourierft", "frequencies", 1000, 1e-2, seeded=True),
        _variant("ln_tuning", "LN-tuning", "qi2022lntuning", None, None, 1e-3, locations=()),
        _variant("prompt", "Prompt-Tuning", "lester2021prompt", "tokens", 20, 1e-2, identity=False, merges=False, locations=(), module=None, cannot=TOKENS),
        _selective("last_layers", "Last layers", None, locations=("both", "attn", "mlp", "gate_up")),
        _selective("spider", "SPIDER", "huang2025spider", cannot="It compares gradients with the weights at the start, which a new adapter has not."),
        _selective("spider_hard", "SPIDER, hard mask", "huang2025spider"),
        _selective("largest_gradient", "Largest gradients", "huang2025spider"),
        _selective("smallest_magnitude", "Smallest weights", "huang2025spider"),
        _selective("random_half", "Random half", "huang2025spider"),
        _selective("half_tuning", "Half fine-tuning", "hui2024hft"),
        _selective("l2_sp", "L2-SP", "li2018l2sp"),
        _selective("l1_sp", "L1 penalty", "huang2025spider"),
        _selective("dare_90", "DARE, 0.9 dropped", "yu2024dare"),
        _selective("dare_50", "DARE, 0.5 dropped", "yu2024dare"),
        _selective("wise", "WiSE-FT", "wortsman2022wiseft"),
        _selective("tailor", "Model Tailor", "zhu2024tailor"),
        _merged("lora_dare_90", "LoRA, DARE 0.9", "yu2024dare"),
        _merged("lora_dare_50", "LoRA, DARE 0.5", "yu2024dare"),
        _merged("lora_wise", "LoRA, WiSE-FT", "wortsman2022wiseft"),
        _merged("lora_tailor", "LoRA, Model Tailor", "zhu2024tailor"),
    )
}

# What truly cannot work, by method and model family, and why: a run of it is refused before it starts.
REFUSED: dict[tuple[str, str], str] = {
    ("prompt", "gemma"): "its masks, in which a picture's tokens see each other in both directions, are made before the prompt is put in",
    ("prefix", "gemma"): "when it answers, peft drops the marks of a picture's tokens, so they would no longer see each other in both directions",
}

ABSENT: dict[str, str] = {
    "loftq": "it quantises a base that is still in full precision, which peft (0.21.2) does on CUDA alone, and never one already quantised; use lora with quantisation nf4",
    "qlora": "it is lora with quantisation nf4",
}

CONNECTOR_LR = 1e-3  # pocket default of the connector's own parameter group; Zhou et al. use 2e-5
CONNECTOR_LR_PAPER = 2e-5


def card(name: str) -> MethodCard:
    """The card of method `name`; raises ValueError naming the choices, or the reason where a known method has none."""
    if name in ABSENT:
        raise ValueError(f"method is {name!r}, which is not to be had: {ABSENT[name]} (lib/peftlab/methods/__init__.py)")
    if name not in METHODS:
        raise ValueError(f"method is {name!r}; choose one of {', '.join(METHODS)} (lib/peftlab/methods/__init__.py)")
    return METHODS[name]


def attach(loaded: Any, run: Any) -> Any:
    """Attach `run.method` to a `models.Loaded`: returns the model to train.

    Afterwards exactly the method's own parameters, and the connector's where ``run.connector == "tuned"``, require a
    gradient, and they are fp32 (bf16 steps would be rounded away); everything else is frozen as loaded. A model takes one attachment: load it again
    for the next. The start values depend on ``run.seed`` alone and no random state is left behind.
    """
    run = replace(run, size=fitted(loaded, run), budget=None)
    model = implementation(run.method).attach(loaded, run)
    for name, parameter in named_parameters(model):
        trains = is_trained(name, loaded, run)
        parameter.requires_grad_(trains)
        if trains:
            parameter.data = parameter.data.float()
    return model


def merge(model: Any, run: Any) -> Any:
    """An attached (or settled) model of `run` with what was learned added to its weights: the bare model, nothing of peft around it.

    Raises ValueError like `mergeable`.
    """
    mergeable(run)
    return model.merge_and_unload(safe_merge=True) if hasattr(model, "merge_and_unload") else model


def mergeable(run: Any) -> None:
    """Raise ValueError where `run`'s method cannot be merged, or its base is not in fp32: what is added to a bf16 or packed weight is rounded."""
    found = card(run.method)
    if not found.merges:
        raise ValueError(f"{found.label} cannot be merged into the weights: {found.cannot}")
    if run.quantisation != "none" or run.precision != "fp32":
        raise ValueError(f"merging needs the base in fp32, and this one is {run.precision} with quantisation {run.quantisation}: load the run with precision fp32")


def settled(loaded: Any, run: Any) -> Any:
    """As `attach`, but in the shape that the model has after training: what is restored into.

    The same shape for all methods but those that end in other weights than they trained.
    """
    model = attach(loaded, run)
    settle(model, run)
    return model


def settle(model: Any, run: Any) -> None:
    """Bring an attached model into the shape that it has after training, in place; see `settled`."""
    into = getattr(implementation(run.method), "settle", None)
    if into:
        into(model)


def fitted(loaded: Any, run: Any) -> int | None:
    """The size of the run: its own or its card's, or the largest whose own parameters keep within `run.budget` per cent of the base's.

    Raises ValueError where even the smallest is over the budget. Counted on the meta device, so no size is tried in memory.
    """
    if run.budget is None:
        return run.resolved()["size"]
    return import_module("peftlab.methods.sizes").largest(loaded, run)


def is_trained(name: str, loaded: Any, run: Any) -> bool:
    """Whether the parameter `name` (as `named_parameters` gives it) trains in this run: the method's own or the tuned connector's."""
    if loaded.towers.in_connector(name):
        return run.connector == "tuned"
    return implementation(run.method).own(name, loaded, run)


class Companion:
    """What a method does beside the optimiser: by default nothing. Called by the training loop in this order, every step."""

    def penalty(self) -> Any:
        """Added to the loss: a scalar tensor, or 0."""
        return 0.0

    def after_backward(self) -> None:
        """Sees the raw gradients, before they are clipped."""

    def after_step(self) -> None:
        """Sees the weights after the optimiser's step."""

    def facts(self) -> dict[str, float]:
        """For the step log."""
        return {}

    def finish(self) -> None:
        """Sees the trained weights, once, after the last step."""

    def state(self) -> dict[str, Any]:
        """The tensors that a checkpoint must hold beside weights and optimiser, by name."""
        return {}

    def load(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""


def rate(name: str, run: Any) -> float:
    """What the method's learning rate is multiplied by for its parameter `name`: 1 but for methods that say otherwise."""
    made = getattr(implementation(run.method), "rate", None)
    return made(name, run) if made else 1.0


def linears(towers: Any, run: Any) -> tuple[str, ...]:
    """The names of the linears inside a block at the run's location (`run.location`, else the card's first)."""
    location = run.location or card(run.method).locations[0]
    gate_up = tuple(name for name in towers.mlp if name.endswith(("gate_proj", "up_proj")))
    return {"attn": towers.attn, "mlp": towers.mlp, "both": (*towers.attn, *towers.mlp), "gate_up": gate_up}[location]


def companion(model: Any, run: Any) -> Companion:
    """The companion of an attached model, made before its first step."""
    make = getattr(implementation(run.method), "companion", None)
    return make(model, run) if make else Companion()


def keeps(method: str) -> bool:
    """Whether what `method` has trained after any step can be stored as it is: not of selective ones, some of which edit weights at the end."""
    return card(method).group != "selective"


def implementation(method: str) -> Any:
    """The module that implements a method; one that is made of others asks for theirs here."""
    found = card(method)
    return import_module(f"peftlab.methods.{found.module or found.name}")


def inner(model: Any) -> Any:
    """The model without peft around it, its adapters within."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def named_parameters(model: Any) -> Iterator[tuple[str, Any]]:
    """A model's parameters, each once, named by their path in the bare model whatever peft has wrapped around it."""
    bare = inner(model)
    wrapping = next(name for name, module in model.named_modules() if module is bare)
    for name, parameter in model.named_parameters():
        yield name.removeprefix(f"{wrapping}."), parameter


def targets(towers: Any, names: Iterable[str]) -> str:
    """A regular expression (for peft's ``target_modules``) that matches `names` in every LLM block by full path and nothing else."""
    block = re.escape(towers.layer).replace(re.escape("{i}"), r"\d+")
    return rf"{block}\.({'|'.join(re.escape(name) for name in names)})"
