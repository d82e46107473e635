"""A training that was cut off goes on at the losses it would have had."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from peftlab import checkpoints, methods, models, training
from peftlab.records import Example
from peftlab.run import Run

STEPS, CUT = 9, 5
METHODS = ("lora", "lora_plus", "ia3", "prefix", "vera", "spider", "half_tuning", "random_half", "tailor", "lora_tailor", "lora_wise")


def examples() -> list[Example]:
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype="uint8")) for _ in range(6)]
    return [Example(f"e{i}", f"p{i}", picture, "What is it?", (answer,), "t", 0, "a") for i, (picture, answer) in enumerate(zip(pictures, "fog rose no wind sea one".split()))]


def tuned(run: Run, keep: Path | None = None) -> tuple[training.StepLog, dict[str, torch.Tensor]]:
    """The log of a training from the start or a checkpoint, and what it trained."""
    loaded = models.load(run)
    model = methods.attach(loaded, run)
    log = training.finetune(model, loaded, examples(), run, progress=False, keep=keep)
    return log, {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_training_goes_on_at_the_same_losses(method: str, sizes: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(model="tiny-mlp", method=method, connector="tuned", steps=STEPS, batch_size=2, size=sizes.get(method), precision="fp32")
    whole, expected = tuned(run)
    keep, loss, calls = tmp_path / "kept.safetensors", training._loss, [0]

    def killed(*given: Any) -> torch.Tensor:
        calls[0] += 1
        if calls[0] > CUT:
            raise KeyboardInterrupt
        return loss(*given)

    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    monkeypatch.setattr(training, "_loss", killed)
    with pytest.raises(KeyboardInterrupt):
        tuned(run, keep)
    monkeypatch.setattr(training, "_loss", loss)
    resumed, found = tuned(run, keep)
    assert resumed.resumed == CUT and whole.resumed is None
    assert resumed.steps["step"].tolist() == list(range(STEPS))
    for column in ("loss", "grad_norm", "lr", "tokens"):
        assert resumed.steps[column].tolist() == whole.steps[column].tolist()
    assert set(found) == set(expected) and all(torch.equal(found[n], expected[n]) for n in expected)


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    keep = tmp_path / "kept.safetensors"
    tuned(Run(model="tiny-mlp", method="lora", steps=2, batch_size=2, precision="fp32"), keep)
    with pytest.raises(ValueError, match="is a checkpoint of another training"):
        tuned(Run(model="tiny-mlp", method="ia3", steps=2, batch_size=2, precision="fp32"), keep)


def test_a_checkpoint_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    run = Run(model="tiny-mlp", method="lora", steps=2, batch_size=2, precision="fp32")
    log, _ = tuned(run, tmp_path / "no such folder" / "kept.safetensors")
    assert len(log.steps) == 2 and "no checkpoint after 1 steps" in "".join(capsys.readouterr())


def test_nothing_is_kept_of_a_short_training(tmp_path: Path) -> None:
    tuned(Run(model="tiny-mlp", method="lora", steps=2, batch_size=2, precision="fp32"), tmp_path / "kept.safetensors")
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- steps that are kept to be probed


@pytest.mark.parametrize("method", ["connector", "lora", "ia3", "adapter", "prefix"])
def test_what_was_trained_after_a_step_is_kept_whatever_kills_the_training(method: str, sizes: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(model="tiny-mlp", method=method, connector="tuned", steps=6, batch_size=2, size=sizes.get(method), precision="fp32", keep_every=2)
    _, without = tuned(replace(run, keep_every=None))
    keep, loss, live = tmp_path / "kept.safetensors", training._loss, dict[int, dict[str, torch.Tensor]]()
    calls = [0]

    def watched(model: Any, *given: Any) -> torch.Tensor:
        live[calls[0]] = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        calls[0] += 1
        if calls[0] == 5:
            raise KeyboardInterrupt
        return loss(model, *given)

    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    monkeypatch.setattr(training, "_loss", watched)
    with pytest.raises(KeyboardInterrupt):
        tuned(run, keep)
    monkeypatch.setattr(training, "_loss", loss)
    loaded = models.load(run)
    model = methods.attach(loaded, run)
    training.finetune(model, loaded, examples(), run, progress=False, keep=keep)
    folder = tmp_path / "stage"
    folder.mkdir()
    training.save(model, folder, run, keep=keep)
    assert {f.name for f in folder.iterdir()} == {"adapter.safetensors", "adapter-2.safetensors", "adapter-4.safetensors"}
    restored = methods.settled(models.load(run), run)
    for name, expected in {"adapter-2.safetensors": live[2], "adapter-4.safetensors": live[4], "adapter.safetensors": without}.items():
        training.restore(restored, folder, name)
        found = {n: p for n, p in restored.named_parameters() if p.requires_grad}
        assert set(found) == set(expected) and all(torch.equal(found[n], expected[n]) for n in expected), name
    assert any(not torch.equal(live[2][n], live[4][n]) for n in live[2])


def test_a_step_that_should_have_been_kept_and_is_gone_is_said(tmp_path: Path) -> None:
    run, keep = Run(model="tiny-mlp", method="lora", steps=3, batch_size=2, precision="fp32", keep_every=2), tmp_path / "kept.safetensors"
    loaded = models.load(run)
    model = methods.attach(loaded, run)
    with pytest.raises(ValueError, match="keep_every is 2, but there is no place"):
        training.finetune(model, loaded, examples(), run, progress=False)
    training.finetune(model, loaded, examples(), run, progress=False, keep=keep)
    (tmp_path / "kept.safetensors.at2").unlink()
    with pytest.raises(FileNotFoundError, match="what was trained after 2 steps"):
        training.save(model, tmp_path, run, keep=keep)
