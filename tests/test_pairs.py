"""What `bench` measures beside its peers: the order of turns, ratios, and which file keeps them."""

import json
from pathlib import Path

import pytest

from bench import pairs
from bench.pairs import Pair


def test_every_measure_is_taken_each_round_and_every_second_round_backwards() -> None:
    taken: list[str] = []

    def measure(name: str) -> int:
        taken.append(name)
        return len(taken)

    found = pairs.in_turn(lambda: measure("ours"), lambda: measure("one peer"), lambda: measure("another"), rounds=3)
    assert taken == ["ours", "one peer", "another", "another", "one peer", "ours", "ours", "one peer", "another"]
    assert found == [[1, 6, 7], [2, 5, 8], [3, 4, 9]], "each list holds what one measure found, in the order of rounds"


@pytest.mark.parametrize(("unit", "ratios"), [("s", [1.5, 2.0, 4.0]), ("GB", [1.5, 2.0, 4.0]), ("samples/s", [0.25, 0.5, 1 / 1.5])])
def test_a_ratio_says_how_many_times_better_ours_is_round_by_round(unit: str, ratios: list[float]) -> None:
    pair = Pair("a step", ours=[1.0, 2.0, 2.0], peer=[4.0, 4.0, 3.0], against="a peer", unit=unit)
    assert pair.ratios == pytest.approx(ratios)
    assert pair.row()[4].startswith(f"{ratios[1]:.2f} [{ratios[0]:.2f}, ")


@pytest.mark.parametrize(
    ("stamp", "file", "label"),
    [
        ({"device": "cpu"}, "steps.json", "steps"),
        ({"device": "cpu", "products": "fp32", "processor": "A"}, "steps.json", "steps, fp32, A"),
        ({"device": "cpu", "products": "bf16", "processor": "A"}, "steps-bf16.json", "steps, bf16, A"),
        ({"device": "cpu", "products": pairs.AMX, "processor": "B"}, "steps-amx.json", "steps, bf16 by AMX, B"),
        ({"device": "NVIDIA H200", "products": "bf16", "processor": "B"}, "steps-gpu.json", "steps, NVIDIA H200"),
    ],
)
def test_figures_of_different_machines_are_kept_apart(stamp: dict[str, object], file: str, label: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "RESULTS", tmp_path)
    pair = Pair("a step", [1.0], [2.0], "a peer")
    assert pairs.keep("steps", [pair], stamp).name == file
    assert json.loads((tmp_path / file).read_text())["bench"] == "steps"
    assert pairs.kept() == [(label, pair)]
