"""What products are computed in, and what a model holds where a processor has no instructions for bf16."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from peftlab import inference, loading, methods, models, training
from peftlab.models import RANDOM
from peftlab.records import Example
from peftlab.run import Run

X86, ARM = {"architecture": "x86_64", "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, {"architecture": "aarch64"}
FAMILIES = sorted({card.family: name for name, card in models.MODELS.items() if card.source == RANDOM}.values())


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what the processor has, whether there is a GPU, and what the environment says."""

    def be(processor: dict[str, object], gpu: bool = False, said: str | None = None) -> None:
        monkeypatch.delenv("PEFTLAB_BF16", raising=False) if said is None else monkeypatch.setenv("PEFTLAB_BF16", said)
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)

    return be


def test_products_are_in_bf16_where_there_are_instructions_for_it(here: Callable[..., None]) -> None:
    for processor, gpu, said, expected in (
        (X86, False, None, "fp32"),
        (X86 | {"avx512_bf16": True}, False, None, "bf16"),
        (X86 | {"amx_bf16": True}, False, None, "bf16"),
        (ARM, False, None, "bf16"),
        (X86, True, None, "bf16"),
        (X86, False, "1", "bf16"),
        (X86 | {"avx512_bf16": True}, False, "0", "fp32"),
    ):
        here(processor, gpu, said)
        assert loading.products("bf16") == expected, (processor, gpu, said)
        assert loading.products("fp32") == "fp32"


@pytest.mark.parametrize("name", FAMILIES)
def test_without_them_weights_are_rounded_and_all_else_is_fp32(name: str, here: Callable[..., None]) -> None:
    run = Run(model=name)
    rounded = models.load(run).model.state_dict()
    exact = models.load(replace(run, precision="fp32")).model.state_dict()
    here(X86)
    held = models.load(run)
    assert {p.dtype for p in held.model.parameters()} == {torch.float32}
    for key, tensor in held.model.state_dict().items():
        assert torch.equal(tensor.float(), rounded[key].float()), key
    assert any(not torch.equal(tensor, exact[key]) for key, tensor in held.model.state_dict().items())
    assert not torch.is_autocast_enabled("cpu")
    with loading.autocast(run, torch.device("cpu")):
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("quantisation", ["none", "nf4", "int8"])
def test_without_them_a_run_trains_answers_and_comes_near_what_it_is_in_bf16(quantisation: str, here: Callable[..., None]) -> None:
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (160, 160, 3), dtype="uint8")) for _ in range(4)]
    examples = [Example(f"e{i}", f"p{i}", picture, "What is it?", ("fog",), "t", 0, "a") for i, picture in enumerate(pictures)]
    run = Run(model="tiny-mlp", connector="tuned", quantisation=quantisation, steps=3, batch_size=2)

    def tuned() -> tuple[list[float], list[str]]:
        loaded = models.load(run)
        model = methods.attach(loaded, run)
        log = training.finetune(model, loaded, examples, run, progress=False)
        return log.steps["loss"].tolist(), inference.answer(model, loaded, examples, run, max_new_tokens=2)

    losses, said = tuned()
    here(X86)
    others, answers = tuned()
    assert others == pytest.approx(losses, rel=0.02) and others != losses
    assert len(said) == len(answers) == 4
