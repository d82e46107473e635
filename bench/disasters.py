"""A grid of 200 short runs, interrupted again and again in every way we know, beside the same grid left alone: same scores, nothing left behind.

It works in a mount namespace of its own, on a disk in memory, which can be filled and made read-only without harm to anything else.
"""

import contextlib
import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import psutil

from bench import customised
from bench.pairs import Pair
from peftlab import paths

RUNS, WORKERS, SEED = int(os.environ.get("PEFTLAB_BENCH_RUNS", 200)), 2, 0  # runs: a multiple of ten; fewer only to try this bench
LEAST = 10  # interruptions of the whole grid
GRID = f"""
study: disasters
why: Whether what interrupts a grid changes what it finds.
stages: [finetune, evaluate]
expect: {RUNS}
base: {{model: tiny-mlp, precision: fp32, steps: 4, train_size: 64, test_size: 16}}
grids: [{{method: [lora, ia3, adapter, prefix, full], connector: [frozen, tuned], seed: [{", ".join(map(str, range(RUNS // 10)))}]}}]
"""
INSIDE = "PEFTLAB_BENCH_INSIDE"  # set in the process that has the disk of its own


def measure() -> list[Pair]:
    """Seconds of the grid left alone and interrupted; AssertionError where the interrupted one found anything else."""
    with tempfile.TemporaryDirectory(prefix="peftlab-") as folder:
        script = f"mount -t tmpfs -o size=3g none {folder} && {INSIDE}={folder} exec {sys.executable} -m bench.disasters"
        said = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True)
    if said.returncode:
        raise RuntimeError(f"the grid of disasters did not end well: {said.stdout[-2000:]} {said.stderr[-8000:]}")
    alone, interrupted, note = said.stdout.splitlines()[-1].split(" ", 2)
    return [Pair(f"{RUNS} runs, {WORKERS} at a time", [float(interrupted)], [float(alone)], "the same grid left alone", note=note)]


# ---------------------------------------------------------------- inside


def main() -> None:
    """Both grids, compared; the last line printed is seconds alone, seconds interrupted, what was done to it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what it starts in the background ignore it, and all that is started from there
    disk = Path(os.environ[INSIDE])
    kept = Path(os.environ.get("PEFTLAB_WORK") or paths.root() / "data") / "prepared" / "icons_choice"
    grid = disk / "grid.yaml"
    grid.write_text(GRID)
    works = {name: disk / name for name in ("alone", "interrupted")}
    for work in works.values():
        shutil.copytree(kept, work / "prepared" / "icons_choice")
    start = time.perf_counter()
    assert executor(grid, works["alone"]).wait() == 0, "the grid left alone did not end well"
    alone = time.perf_counter() - start

    start, chance, done = time.perf_counter(), random.Random(SEED), []
    for way in [*chance.sample(WAYS, len(WAYS)), *chance.sample(WAYS, len(WAYS))]:  # each once before any comes again
        process = executor(grid, works["interrupted"])
        time.sleep(chance.uniform(4, 14))
        with contextlib.suppress(Over):
            for _ in way(process, disk, chance):
                time.sleep(chance.uniform(1, 4))
            done.append(way.__name__)
        end(process)
    if RUNS >= 200:
        assert len(done) >= LEAST and set(done) == {way.__name__ for way in WAYS}, f"the grid was over after {len(done)} interruptions, of which none is {sorted({way.__name__ for way in WAYS} - set(done))}"
    calls = next((n for n in range(1, 6) if executor(grid, works["interrupted"]).wait() == 0), None)
    assert calls, "five calls did not complete the interrupted grid"
    interrupted = time.perf_counter() - start
    compare(works)
    print(f"{alone:.1f} {interrupted:.1f} {len(done)} interruptions ({', '.join(f'{done.count(name)} {name}' for name in sorted(set(done)))}); {RUNS} runs with equal answers, nothing left behind, {calls} call{'s' * (calls > 1)} to complete")


def executor(grid: Path, work: Path) -> subprocess.Popen[bytes]:
    """The command people give, in a session of its own, by a clock that can be set."""
    environment = {**os.environ, "PEFTLAB_WORK": str(work), **settable(grid.parent)}
    return subprocess.Popen([sys.executable, "-m", "peftlab", "run", str(grid), "--plain", "--workers", str(WORKERS)], env=environment, stdout=subprocess.DEVNULL, start_new_session=True)


def end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt an executor that still runs; AssertionError where anything of it lives on."""
    below = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
    if below:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGUSR1)  # it says where it is
        time.sleep(2)
        raise
    _, living = psutil.wait_procs(below, timeout=30)
    assert not living, f"processes outlive their executor: {living}"


def compare(works: dict[str, Path]) -> None:
    """Every answer and every loss equal, and no file that the grid left alone does not have."""
    there = {name: sorted(f.relative_to(work / "runs").as_posix() for f in (work / "runs").rglob("*")) for name, work in works.items()}
    assert there["alone"] == there["interrupted"], f"other files: {sorted(set(there['alone']) ^ set(there['interrupted']))[:5]}"
    answers = [name for name in there["alone"] if name.endswith("predictions.parquet")]
    assert len(answers) == RUNS
    for name in there["alone"]:
        if name.endswith(".parquet"):
            one, other = (pd.read_parquet(work / "runs" / name).drop(columns="seconds", errors="ignore") for work in works.values())
            pd.testing.assert_frame_equal(one, other)


# ---------------------------------------------------------------- ways to interrupt; each yields where time should pass


def _below(process: subprocess.Popen[bytes], word: str) -> list[psutil.Process]:
    """The processes of an executor that were started with a word that holds `word`."""
    found = []
    for one in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            found += [one] if any(word in given for given in one.cmdline()) else []
    return found


def _kernels(process: subprocess.Popen[bytes]) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """The fork servers of an executor and its worker, and the kernels that were forked from them."""
    forked = _below(process, "runpy")
    pids = {one.pid for one in forked}
    with contextlib.suppress(psutil.Error):
        return [one for one in forked if one.ppid() not in pids], [one for one in forked if one.ppid() in pids]
    return [], []


class Over(Exception):
    """The executor ended before it could be interrupted."""


def _kill(find: Callable[[], list[psutil.Process]], process: subprocess.Popen[bytes], chance: random.Random) -> None:
    """Kill one of what is found, as soon as anything is; Over where the executor ends before."""
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile: the next
            if found := find():
                chance.choice(found).kill()
                return
        time.sleep(0.05)
    raise Over


def running(way: Callable[..., Iterator[None]]) -> Callable[..., Iterator[None]]:
    """A way that is gone only while the executor runs; Over otherwise."""

    @functools.wraps(way)
    def gone(process: subprocess.Popen[bytes], disk: Path, chance: random.Random) -> Iterator[None]:
        if process.poll() is not None:
            raise Over
        yield from way(process, disk, chance)

    return gone


@running
def executor_killed(process: subprocess.Popen[bytes], disk: Path, chance: random.Random) -> Iterator[None]:
    """SIGKILL of the process that was called; its workers and kernels must end by themselves."""
    below = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    _, living = psutil.wait_procs(below, timeout=30)
    assert not living, f"processes outlive their executor: {living}"
    yield


def worker_killed(process: subprocess.Popen[bytes], disk: Path, chance: random.Random) -> Iterator[None]:
    """SIGKILL of the other worker; the grid goes on without it."""
    _kill(lambda: [one for one in _below(process, "--plain") if one.pid != process.pid], process, chance)
    yield


def kernel_killed(process: subprocess.Popen[bytes], disk: Path, chance: random.Random) -> Iterator[None]:
    """SIGKILL of a notebook's kernel: its stage fails, is recorded, and the others go on."""
    _kill(lambda: _kernels(process)[1], process, chance)
    yield


def fork_server_killed(process: subprocess.Popen[bytes], disk: Path, chance: random.Random) -> Iterator[None]:
    """SIGKILL of what kernels are forked from, and of every kernel with it."""
    _kill(lambda: _kernels(process)[0], process, chance)
    yield


@running
def interrupted(process: subprocess.Popen[bytes], disk: Path, chance: random.Random) -> Iterator[None]:
    """What Ctrl-C does."""
    process.send_signal(signal.SIGINT)
    yield


@running
def disk_full(process: subprocess.Popen[bytes], disk: Path, chance: random.Random) -> Iterator[None]:
    """No byte left for some seconds."""
    filled = disk / "filled"
    with contextlib.suppress(OSError), filled.open("wb", buffering=0) as handle:  # until it is full
        while handle.write(bytes(2**20)):
            pass
    yield
    yield
    filled.unlink()


def disk_read_only(process: subprocess.Popen[bytes], disk: Path, chance: random.Random) -> Iterator[None]:
    """A call on a disk that takes nothing, after a kill (while a file is open for writing, no disk can be made so)."""
    yield from executor_killed(process, disk, chance)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    assert executor(disk / "grid.yaml", disk / "interrupted").wait(300) == 1, "a call on a read-only disk did not end as one"
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    yield


@running
def clock_jumped(process: subprocess.Popen[bytes], disk: Path, chance: random.Random) -> Iterator[None]:
    """The clock that executor, worker and kernels read leaps while they run, and stays so: by a day ahead, the next time to a day behind.

    A kernel dies in that time, and what was written then is of that day, so that the next calls find a failure of tomorrow, or one younger than they are.
    """
    file, began = disk / "clock", time.time()
    leap = -86_400.0 if file.exists() else 86_400.0
    file.write_text(str(leap))
    yield
    with contextlib.suppress(Over):
        _kill(lambda: _kernels(process)[1], process, chance)
    yield
    for made in (disk / "interrupted").rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            if made.stat().st_mtime >= began:
                os.utime(made, (made.stat().st_mtime + leap,) * 2)
    yield


CLOCK = """
import faulthandler, os, signal, time

faulthandler.register(signal.SIGUSR1, all_threads=True)

def shifted(read, unit):
    def now():
        try:
            with open({file!r}) as handle:
                return read() + unit(float(handle.read() or 0))
        except OSError:
            return read()
    return now

time.time, time.time_ns = shifted(time.time, float), shifted(time.time_ns, lambda seconds: int(seconds * 1e9))
"""


def settable(disk: Path) -> dict[str, str]:
    """The environment of a Python that tells where it is at SIGUSR1, and whose ``time.time`` and ``time.time_ns`` are off by the seconds in the file clock, as long as there is one.

    The system's own clock is out of reach of who is not its administrator: a time namespace has no real-time clock of its own. What asks the
    system past these two functions, such as `datetime`, and the times of files, reads the true one; `clock_jumped` sets the latter.
    """
    return customised(disk / "clocks", CLOCK.format(file=str(disk / "clock")))


WAYS = (executor_killed, worker_killed, kernel_killed, fork_server_killed, interrupted, disk_full, disk_read_only, clock_jumped)

if __name__ == "__main__":
    main()
