"""A measure beside its peer's, taken in turns, and their ratio with its spread."""

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

RESULTS = Path(__file__).parent / "results"
AMX = "bf16 by AMX"  # several times as fast as AVX-512's bf16, so its figures are kept apart
T = TypeVar("T")


@dataclass(frozen=True)
class Pair:
    """Two ways to the same end. Values are in `unit`; where that is a rate, more is better."""

    what: str
    ours: list[float]
    peer: list[float]
    against: str  # what a user would run instead
    unit: str = "s"
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """How many times better ours is, round by round, the lowest first."""
        rate = self.unit.endswith("/s")
        return sorted(o / p if rate else p / o for o, p in zip(self.ours, self.peer, strict=True))

    def row(self) -> list[str]:
        """As people read it: what, ours, the peer, the ratio's median, least and most."""
        ours, peer, ratio = (statistics.median(values) for values in (self.ours, self.peer, self.ratios))
        return [self.what, f"{ours:.3g} {self.unit}", f"{peer:.3g} {self.unit}", self.against, f"{ratio:.2f} [{self.ratios[0]:.2f}, {self.ratios[-1]:.2f}]", self.note]


def in_turn(*measures: Callable[[], T], rounds: int) -> list[list[T]]:
    """What each measures, `rounds` times, in every second round the last of them first: what else the machine does then hurts all."""
    found: list[list[T]] = [[] for _ in measures]
    for number in range(rounds):
        for measured, measure in list(zip(found, measures, strict=True))[:: 1 if number % 2 == 0 else -1]:
            measured.append(measure())
    return found


def keep(name: str, pairs: list[Pair], stamp: dict[str, object]) -> Path:
    """Write a bench's measures to bench/results/<name>.json, with what they were taken on; to <name>-gpu.json, or by what a processor multiplies in bf16 with to <name>-bf16.json or <name>-amx.json."""
    RESULTS.mkdir(exist_ok=True)
    kind = "gpu" if stamp["device"] != "cpu" else {"bf16": "bf16", AMX: "amx"}.get(str(stamp.get("products")), "")
    file = RESULTS / f"{'-'.join(filter(None, (name, kind)))}.json"
    about = {"bench": name, "when": datetime.now(UTC).isoformat(timespec="seconds"), **stamp, "pairs": [asdict(pair) for pair in pairs]}
    file.write_text(json.dumps(about, indent=1) + "\n")
    return file


def kept() -> list[tuple[str, Pair]]:
    """All that was measured last, by bench and the GPU it used, or what a processor multiplied in and which that was."""
    found = []
    for file in sorted(RESULTS.glob("*.json")):
        content = json.loads(file.read_text())
        used = content.get("device", "cpu")
        on = used if used != "cpu" else f"{content['products']}, {content['processor']}" if "products" in content else ""
        found += [(f"{content['bench']}, {on}" if on else content["bench"], Pair(**pair)) for pair in content["pairs"]]
    return found
