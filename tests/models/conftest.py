"""Tiny random models of every family, and a few questions on pictures of different sizes."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from peftlab import features, models
from peftlab.models import RANDOM, Loaded
from peftlab.records import Example
from peftlab.run import Run

TINY = [name for name, card in models.MODELS.items() if card.source == RANDOM]
ASKED = (((40, 24), "What is it?", "fog"), ((24, 24), "And this one, please?", "a rose"), ((20, 64), "Why?", "no"), ((33, 30), "Is it so?", "yes"))


@pytest.fixture(params=TINY)
def name(request: pytest.FixtureRequest) -> str:
    """The card of a tiny model, one of each family."""
    return request.param


@pytest.fixture
def examples() -> list[Example]:
    """Four questions, each on noise of another shape: wide, square, high."""
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype="uint8")) for size, _, _ in ASKED]
    return [Example(f"e{i}", f"p{i}", picture, asked, (said,), "t", 0, "a") for i, (picture, (_, asked, said)) in enumerate(zip(pictures, ASKED, strict=True))]


@pytest.fixture
def loud() -> Callable[[Run], Loaded]:
    """Loads a tiny model with weights large enough that every part of it matters to the logits."""

    def load(run: Run) -> Loaded:
        loaded = models.load(run)
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(1)
            for parameter in loaded.model.parameters():
                if parameter.ndim == 2 and parameter.is_floating_point():
                    parameter.copy_(torch.randn(parameter.shape) * 0.15)
        return loaded

    return load


@pytest.fixture
def agree() -> Callable[[nn.Module, Loaded, list[Example]], None]:
    """Asserts that left-padded prompts in a batch are answered as each alone, and that a forward pass over an answer expects what `generate` drew."""
    return _agree


def _agree(model: nn.Module, loaded: Loaded, examples: list[Example], new: int = 3) -> None:
    pictures = features.encode(loaded, [e.image for e in examples])
    rows = [pictures.tokens(e.image, e.question) for e in examples]
    images = [e.image for e in examples]

    def drawn(*which: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the examples `which`: the tokens drawn (rows, new) and the logits they were drawn from (rows, new, vocabulary)."""
        made = _on(model, pictures.batch([rows[i] for i in which], [images[i] for i in which], left=True))
        out = model.eval().generate(
            **made, max_new_tokens=new, min_new_tokens=new, do_sample=False, pad_token_id=loaded.pad, output_logits=True, return_dict_in_generate=True
        )
        return out.sequences[:, -new:].cpu(), torch.stack(out.logits, 1).cpu()

    tokens, together = drawn(*range(len(examples)))
    for i in range(len(examples)):
        torch.testing.assert_close(together[i], drawn(i)[1][0], atol=1e-4, rtol=0, msg=lambda m, i=i: f"row {i} in a batch is not what it is alone: {m}")
    longer = []
    for row, said in zip(rows, tokens.tolist(), strict=True):
        types = {"input_ids": said, "token_type_ids": [loaded.answer_type] * new, "mm_token_type_ids": [0] * new}
        longer.append({name: values + types[name] for name, values in row.items()})
    with torch.no_grad():
        whole = model(**_on(model, pictures.batch(longer, images)), use_cache=False).logits.cpu()
    for i, row in enumerate(rows):
        start = len(row["input_ids"]) - 1
        torch.testing.assert_close(whole[i, start : start + new], together[i], atol=1e-4, rtol=0, msg=lambda m, i=i: f"row {i} is generated otherwise than trained: {m}")


def _on(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A batch where the model is."""
    device = next(model.parameters()).device
    return {name: tensor.to(device) for name, tensor in batch.items()}
