"""The stamp says what made a run, and the clock measures its block."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from peftlab import provenance
from peftlab.run import Run

IDENTITY = ["-c", "user.name=t", "-c", "user.email=t@example.org"]


def git(folder: Path, *arguments: str) -> str:
    """Run git there."""
    return subprocess.run(["git", "-C", str(folder), *IDENTITY, *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small checkout in the place of the project."""
    root = tmp_path / "checkout"
    for name in ("lib/a.py", "notebooks/b.ipynb", "requirements.lock", "README.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("1")
    git(root.parent, "init", "--quiet", str(root))
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "one")
    monkeypatch.setenv("PEFTLAB_ROOT", str(root))
    return root


@pytest.mark.parametrize("name", ["lib/a.py", "notebooks/b.ipynb", "requirements.lock", "lib/new.py"])
def test_dirty_means_library_notebooks_or_lock_file(checkout: Path, name: str) -> None:
    assert provenance.commit() == git(checkout, "rev-parse", "HEAD")
    assert provenance.dirty() is False
    (checkout / "README.md").write_text("2")
    (checkout / "scratch.txt").write_text("2")
    assert provenance.dirty() is False
    (checkout / name).write_text("2")
    assert provenance.dirty() is True
    git(checkout, "add", ".")
    assert provenance.dirty() is True
    git(checkout, "commit", "--quiet", "-m", "two")
    assert provenance.dirty() is False


def test_without_git_commit_and_dirty_are_unknown(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        assert (provenance.commit(), provenance.dirty()) == (None, None)
    (tmp_path / "plain").mkdir()
    monkeypatch.setenv("PEFTLAB_ROOT", str(tmp_path / "plain"))
    assert (provenance.commit(), provenance.dirty()) == (None, None)
    inside = checkout / "lib"  # a copy of the project inside somebody else's checkout has no commit of its own
    monkeypatch.setenv("PEFTLAB_ROOT", str(inside))
    assert provenance.commit() is None


def test_the_stamp_is_complete_and_is_json(checkout: Path) -> None:
    with provenance.Clock() as clock:
        pass
    run = Run(seed=7)
    stamp = json.loads(json.dumps(provenance.stamp(run, clock=clock, trainable={"llm": 3})))
    assert stamp["run"] == run.id and stamp["seed"] == 7 and stamp["trainable"] == {"llm": 3}
    assert {"commit", "dirty", "python", "packages", "system", "processor", "cores", "device", "threads"} <= set(stamp)
    assert {"started", "seconds", "peak_memory_bytes", "peak_memory_kind", "peak_device_bytes"} <= set(stamp)
    assert stamp["started"].endswith("+00:00")
    assert stamp["packages"]["torch"].startswith("2.")
    assert stamp["device"] == "cpu"


def test_a_package_that_is_not_installed_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PACKAGES", ("torch", "no-such-package"))
    assert provenance.packages()["no-such-package"] is None


BLOCKS = """
import json
from peftlab import provenance

def peak(size):
    with provenance.Clock() as clock:
        block = bytearray(size)
        block[::4096] = b"1" * len(block[::4096])
    return vars(clock)

print(json.dumps([peak(200_000_000), peak(1)], default=str))
"""


def test_the_clock_measures_its_own_block() -> None:
    """In a process of its own: one that has run other tests keeps memory that they gave back."""
    large, small = json.loads(subprocess.run([sys.executable, "-c", BLOCKS], capture_output=True, text=True, check=True).stdout)
    assert large["seconds"] >= 0 and large["peak_device_bytes"] is None
    if small["peak_memory_kind"] == "block":
        assert large["peak_memory_bytes"] - small["peak_memory_bytes"] > 150_000_000
    else:
        assert large["peak_memory_bytes"] <= small["peak_memory_bytes"]


def test_where_the_counter_cannot_be_reset_the_clock_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_reset_peak", lambda: False)
    with provenance.Clock() as clock:
        pass
    assert clock.facts()["peak_memory_kind"] == "process"
    assert clock.peak_memory_bytes > 1_000_000


def test_a_gpu_that_torch_uses_is_named_and_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cuda:
        reset = 0

        def device_count(self) -> int:
            return 2

        def reset_peak_memory_stats(self, device: int) -> None:
            self.reset += 1

        def synchronize(self) -> None: ...

        def max_memory_allocated(self, device: int) -> int:
            return (40, 2)[device]

        def get_device_name(self) -> str:
            return "A GPU"

    cuda = Cuda()
    monkeypatch.setattr(provenance, "_cuda", lambda: cuda)
    with provenance.Clock() as clock:
        pass
    assert cuda.reset == 2
    assert provenance.stamp(Run(), clock=clock)["peak_device_bytes"] == 42
    assert provenance.stamp(Run())["device"] == "A GPU"


TORCH = """
import os

class cuda:
    cards = [("Large", 80), ("Small", 24), ("Large", 80)]
    seen = [int(i) for i in os.environ.get("CUDA_VISIBLE_DEVICES", "0,1,2").split(",")]

    @classmethod
    def device_count(cls):
        return len(cls.seen)

    @classmethod
    def get_device_properties(cls, i):
        name, size = cls.cards[cls.seen[i]]
        return type("Properties", (), {"name": name, "total_memory": size * 10**9})

    @classmethod
    def mem_get_info(cls, i):
        return (cls.cards[cls.seen[i]][1] - 1) * 10**9, 0
"""


@pytest.fixture
def three_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A torch that knows three GPUs, in the place of the real one: there is none where these tests are written."""
    (tmp_path / "torch.py").write_text(TORCH)
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    yield
    provenance._gpus.cache_clear()


def test_gpus_are_those_that_the_user_leaves_visible(three_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert provenance.gpus() == ()  # conftest hides all
    assert provenance.machine()["device"] == "cpu" and provenance.machine()["device_memory_bytes"] is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,1")
    assert provenance.gpus() == (provenance.Gpu("2", "Large", 80 * 10**9, 79 * 10**9), provenance.Gpu("1", "Small", 24 * 10**9, 23 * 10**9))
    assert {k: provenance.machine()[k] for k in ("device", "device_memory_bytes")} == {"device": "Large + Small", "device_memory_bytes": 104 * 10**9}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [gpu.place for gpu in provenance.gpus()] == ["0", "1", "2"] and provenance.machine()["device"] == "2 x Large + Small"


def test_memory_is_what_the_container_or_job_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance.psutil, "virtual_memory", lambda: SimpleNamespace(total=64 * 10**9, available=60 * 10**9))
    monkeypatch.setattr(provenance, "CGROUPS", tmp_path / "nothing")
    assert provenance.memory() == (64 * 10**9, 60 * 10**9)
    monkeypatch.setattr(provenance, "CGROUPS", tmp_path)
    for name, text in {"max": "8000000000", "current": "3000000000", "stat": "anon 1\ninactive_file 1000000000\n"}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert provenance.memory() == (8 * 10**9, 6 * 10**9)
    (tmp_path / "memory.max").write_text("max\n")
    assert provenance.memory().total == 64 * 10**9
