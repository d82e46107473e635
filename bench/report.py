"""A report made again from tracked results, on a machine where torch and its kin cannot be imported."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import customised
from bench.pairs import Pair
from peftlab import paths

STUDY, ROUNDS, AIM = "main", 3, 20.0
KIN = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "safetensors", "tokenizers", "efficientnet_lite_pytorch", "gguf", "datasets", "ray")
ABSENT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {kin}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


def measure() -> list[Pair]:
    """Seconds from the command to the PDF, beside the aim, and the seconds of a core that it took: on a busy machine the steadier measure."""
    found, cores = [], []
    for _ in range(ROUNDS):
        before = os.times()
        start = time.perf_counter()
        _report()
        found.append(time.perf_counter() - start)
        after = os.times()
        cores.append(after.children_user + after.children_system - before.children_user - before.children_system)
    note = f"{sorted(cores)[ROUNDS // 2]:.1f} seconds of a core; warm kernels, an empty work folder and cache, no pictures"
    return [Pair(f"the report of {STUDY} from tracked results, without torch", found, [AIM] * ROUNDS, "the aim", note=note)]


def _report() -> None:
    """The command people give, where every process of it finds no torch; RuntimeError where it ends badly or leaves no PDF."""
    with tempfile.TemporaryDirectory(prefix="peftlab-") as folder:
        work = Path(folder) / "work"
        environment = {**os.environ, **customised(Path(folder) / "barred", ABSENT.format(kin=KIN)), "PEFTLAB_WORK": str(work), "PEFTLAB_CACHE": str(Path(folder) / "cache"), "MPLBACKEND": "agg"}
        barring = subprocess.run([sys.executable, "-c", "import torch"], env=environment, capture_output=True, text=True)
        if "No module named 'torch'" not in barring.stderr:
            raise RuntimeError("torch can be imported where it was to be barred")
        done = subprocess.run([sys.executable, "-m", "peftlab", "report", STUDY, "--published"], env=environment, capture_output=True, text=True, cwd=paths.root())
        if done.returncode or not (work / "build" / "study.pdf").read_bytes().startswith(b"%PDF"):
            raise RuntimeError(f"the report was not made: {done.stdout[-1000:]} {done.stderr[-2000:]}")
