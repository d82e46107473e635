"""The ledger before a run: Table 15 of Zhou et al. 2024 to the last parameter, budgets, and a live model's agreement."""

import json

import pytest

from peftlab import __main__, ledger, methods, models
from peftlab.run import Run

SIZES = {"adapter": 256, "lora": 128, "ia3": None, "prefix": 20}
TABLE_15 = {  # parameters of the method, per cent that trains with the connector frozen and tuned
    "llava-1.5-7b": {"adapter": (201_326_592, 2.771, 3.060), "lora": (319_815_680, 4.332, 4.616), "ia3": (614_400, 0.009, 0.306), "prefix": (5_242_880, 0.074, 0.371)},
    "llava-1.5-13b": {"adapter": (314_572_800, 2.302, 2.532), "lora": (500_695_040, 3.615, 3.842), "ia3": (962_560, 0.007, 0.243), "prefix": (8_192_000, 0.061, 0.297)},
}


@pytest.mark.parametrize("model", TABLE_15)
@pytest.mark.parametrize("method", SIZES)
def test_table_15(model: str, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "kept", lambda *_, **__: 0)  # parameters are looked at, not memory
    own, *percent = TABLE_15[model][method]
    for connector, share in zip(("frozen", "tuned"), percent, strict=True):
        found = ledger.expected(Run(model=model, method=method, size=SIZES[method], connector=connector))
        llm = found["table"].query("tower == 'llm'")["trainable"].sum()
        assert llm == own
        assert round(100 * found["trainable"] / found["total"], 3) == share


def test_what_is_expected_is_what_a_live_model_has() -> None:
    run = Run(model="tiny-llava", method="lora", size=3, connector="tuned", precision="fp32")
    with pytest.raises(ValueError, match="no full-size configuration of tiny-llava"):
        ledger.expected(run)
    pocket = ledger.expected(Run(method="lora"))
    assert pocket["total"] - pocket["trainable"] == pytest.approx(139_000_000, rel=0.02)


@pytest.mark.parametrize("method", ["lora", "adapter", "prefix", "vera", "prompt"])
def test_a_budget_chooses_the_largest_size_that_keeps_within_it(method: str) -> None:
    run = Run(model="tiny-mlp", method=method, budget=20.0, precision="fp32")
    loaded = models.load(run)
    most = 0.2 * sum(p.numel() for p in loaded.model.parameters())
    size = methods.fitted(loaded, run)

    def trains(size: int) -> int:
        model = methods.attach(models.load(run), Run(model="tiny-mlp", method=method, size=size, precision="fp32"))
        return sum(p.numel() for p in model.parameters() if p.requires_grad)

    assert trains(size) <= most < trains(size + 1)
    attached = methods.attach(loaded, run)
    assert sum(p.numel() for p in attached.parameters() if p.requires_grad) == trains(size)


def test_a_size_that_trains_less_the_larger_it_is_and_one_that_would_be_changed_are_sentences() -> None:
    run = Run(model="tiny-mlp", method="randlora", budget=8.0, precision="fp32")
    with pytest.raises(ValueError, match="what randlora trains falls as its rank grows .*: give size, not budget"):
        methods.fitted(models.load(run), run)
    run = Run(model="tiny-mlp", method="oft", size=6, precision="fp32")
    with pytest.raises(ValueError, match="size is 6, but a block of OFT divides the width of its layer: peft would take 4"):
        methods.attach(models.load(run), run)


def test_budgets_that_cannot_be_met_and_sizes_given_twice_are_sentences() -> None:
    with pytest.raises(ValueError, match="which is given too"):
        Run(method="lora", size=4, budget=1.0)
    with pytest.raises(ValueError, match="of ia3, which has none"):
        Run(method="ia3", budget=1.0)
    with pytest.raises(ValueError, match="budget is 0"):
        Run(method="lora", budget=0)
    run = Run(model="tiny-mlp", method="lora", budget=0.001, precision="fp32")
    with pytest.raises(ValueError, match=r"lora trains .* at rank 1: allow more"):
        methods.fitted(models.load(run), run)
    run = Run(model="tiny-mlp", method="lokr", budget=20.0, precision="fp32")
    with pytest.raises(ValueError, match=r"lokr trains .* at most, whatever its rank: allow less"):
        methods.fitted(models.load(run), run)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["ledger", "llava-1.5-7b", "lora", "size=128", "connector=tuned"]) == 0
    said = capsys.readouterr().out
    assert "340,795,392 of 7,382,718,464 train: 4.616 %, at size 128" in said and "optimiser 2." in said
    assert __main__.main(["ledger", "pocket-mlp", "adapter", "budget=1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["trainable"] <= 0.01 * (found["total"] - found["trainable"]) and found["size"] > 1
    assert __main__.main(["ledger", "pocket-mlp", "lorra"]) == 2
    assert __main__.main(["ledger", "pocket-mlp", "lora", "rank=3"]) == 2


def test_a_value_is_read_as_in_a_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Run] = []

    def expected(run: Run, *, tokens: int) -> None:
        asked.append(run)
        raise ValueError("enough")

    monkeypatch.setattr(ledger, "expected", expected)
    assert __main__.main(["ledger", "pocket-mlp", "lora", "lr=1e-3", "size=null", "checkpointing=true"]) == 2
    assert asked == [Run(method="lora", lr=0.001, checkpointing=True)]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["size=[1"], "axis size is '[1', which is not readable YAML: while parsing a flow sequence"),
        (["lr=2026-13-45"], "axis lr is '2026-13-45', which is not readable YAML: month must be in 1..12"),
        (["size=[1]"], "axis size has level [1]; a level is a number, a word or null"),
        (["dataset=[scenes]"], "axis dataset has level ['scenes']; a level is a number, a word or null"),
        (["size"], "'size' gives no axis a value; write AXIS=VALUE, such as size=128"),
        (["size=4", "size=8"], "axis size is given twice, as 4 and in 'size=8': keep one"),
        (["model=smollm2"], "'model=smollm2' is given beside model pocket-mlp; the model is the first word after ledger and the method the second"),
        (["method=ia3"], "'method=ia3' is given beside method lora"),
        (["--tokens", "0"], "--tokens is 0; a whole number of at least 1"),
    ],
)
def test_what_the_command_cannot_read_is_a_sentence(given: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert __main__.main(["ledger", "pocket-mlp", "lora", *given]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"peftlab ledger: {sentence}") and said.count("\n") == 1
