"""A study's stages on a Ray cluster: what they read travels by its content, what they write comes back whole, a lost node's are done elsewhere."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import socket
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peftlab import execute, paths, provenance, records
from peftlab.board import Board
from peftlab.grid import Study
from peftlab.run import Run
from peftlab.tasks import NOTEBOOKS, UNFIT, States, Task, locked, plan, sweep

LOCAL = "ray"  # the address of a cluster that is made for the call, of this machine alone
TRIES = 3  # more, of a stage that is lost with its node or worker; one that fails is not tried again
QUEUED = 2  # stages sent at once, as multiples of what the cluster's cores can do: enough for it to ask for more nodes, where it can
WAIT = 1.0  # seconds between looks at what came back


def run_grid(study: Study, address: str, *, again_stale: bool = False, again_unfit: bool = False, threads: int = 1, gpus: float | None = None, live: bool = True) -> dict[str, int]:
    """Execute what of a study is not finished on the cluster at `address`; returns counts as `execute.run_grid` does.

    `address` is ``ray``, or what `ray.init` takes: ``auto``, ``host:port``, ``ray://host:port``. Data sets are prepared here. Every other
    stage asks the cluster for `threads` cores and, where the cluster has GPUs, for `gpus` of one (a whole one unless given), is executed in
    an empty folder of some node, and takes its place here under the stage's lock, so that other executors may share this folder.
    One that runs out of memory is executed again with a whole node to itself: where that does not hold it either, it does not fit.
    A node needs the project set up at this commit, and no folder in common with this machine; one that is at another commit
    fails the stage. Raises ValueError where Ray is not installed, no cluster answers, `threads` or `gpus` is not above 0, or no node
    has as many and none will be added (`_stays`); where one may be, it is waited for, and that is said.
    """
    for name, value in (("threads", threads), ("gpus", gpus)):
        if value is not None and value <= 0:
            raise ValueError(f"--{name} is {value}; a stage needs more than none")
    ray = _ray()
    tasks, states, outcomes = plan(study), States(), dict[Path, str]()
    for task in tasks:
        records.sealed(task.folder) if task.stage != "prepare" else None
    with _connected(ray, address):
        if (lacks := _lacks(ray, threads, gpus)) and (address == LOCAL or _stays(ray)):
            raise ValueError(f"{lacks}. Ask for what one node has (--threads, --gpus), or name another cluster (--on)")
        with Board(study, tasks, outcomes, live=live, workers=_slots(ray, threads)) as board:
            execute.advance([task for task in tasks if task.stage == "prepare"], states, outcomes, board, execute.Call())
            sent = _Sent(ray, threads, gpus, provenance.commit())
            while len(outcomes) < len(tasks):
                settled, room = len(outcomes), QUEUED * _slots(ray, threads)  # a cluster may grow
                for task in tasks:
                    if task.folder not in outcomes and task.folder not in sent.running and len(sent.running) < room:
                        _advance(task, states, outcomes, board, sent, again_stale=again_stale, again_unfit=again_unfit)
                if sent.running and (lacks := _lacks(ray, threads, gpus)):
                    board.show(f"waiting for another node: {lacks}")
                for task, held, facts, data, seconds in sent.back():
                    with held:
                        _settle(task, states, board, facts, data, seconds)
                sent.forget({need for task in tasks if task.folder not in outcomes for need in task.needs})
                if not sent.running and len(outcomes) == settled:
                    board.show("waiting for another process")
                    time.sleep(WAIT)
    counts = Counter(outcomes.values())
    return {outcome: counts[outcome] for outcome in execute.OUTCOMES}


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ValueError("a cluster needs Ray, which is not installed here: pip install 'peftlab[cluster]'") from error
    return ray


@contextlib.contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """A connection to the cluster, ended with the block; one that was there before is used and left."""
    mine = not ray.is_initialized()
    if mine:
        try:
            _knock(address)
            ray.init(None if address == LOCAL else address, log_to_driver=False, configure_logging=False, include_dashboard=False if address == LOCAL else None)
        except OSError as error:  # a ConnectionError is one
            raise ValueError(f"no Ray cluster answers at {address!r}: start one (`ray start --head`), or give its address; --on {LOCAL} makes one of this machine") from error
    try:
        yield
    finally:
        if mine:
            ray.shutdown()


def _knock(address: str) -> None:
    """OSError where nothing listens at ``host:port``: Ray itself would try for many minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _slots(ray: Any, threads: int) -> int:
    """How many stages the cluster can execute at once, by its cores."""
    return max(1, int(ray.cluster_resources().get("CPU", 1) // threads))


def _advance(task: Task, states: States, outcomes: dict[Path, str], board: Board, sent: "_Sent", *, again_stale: bool, again_unfit: bool) -> None:
    """Settle a stage that needs nothing done, or send it to the cluster; leave it where what it reads is not there yet or another executor has it."""
    if any(outcomes.get(need) in ("failed", "blocked", "stale") for need in task.needs):
        board.settle(task, "blocked")
    elif all(need in outcomes for need in task.needs):
        held = contextlib.ExitStack()
        mine = held.enter_context(locked(task))
        found = states.of(task)
        if found == "finished" or (mine and found == "stale" and not again_stale):
            board.settle(task, "skipped" if found == "finished" else found)
        elif mine and (unfit := states.unfit(task)) and (not again_unfit or unfit["stage"] != task.stage):
            board.settle(task, UNFIT, unfit["what"])
        elif mine:
            sweep(task)
            task.failure.unlink(missing_ok=True)
            sent.send(task, held.pop_all())
            board.begin(task)
        held.close()


def _settle(task: Task, states: States, board: Board, facts: dict[str, Any] | None, data: bytes, seconds: float | None) -> None:
    """Put what a stage wrote, or why it failed, where this machine would have written it; `seconds` are those on its node."""
    task.folder.parent.mkdir(parents=True, exist_ok=True)
    if data:
        _unpack(data, task.folder.parent)
    if facts is None and states.of(task) != "finished":
        facts = _lost(f"{task.name} came back, but is not a finished stage of what is here: is data/bases of that node as it is here?")
    if facts is None:
        board.settle(task, "done", seconds=seconds)
    else:
        states.fail(task, facts)
        board.settle(task, UNFIT if states.unfit(task) else "failed", facts["what"])


def _nodes(ray: Any) -> list[tuple[float, float]]:
    """GPUs and cores of each node that is alive."""
    return [(node.get("GPU", 0), node.get("CPU", 0)) for node in (n["Resources"] for n in ray.nodes() if n["Alive"])]


def _asked(ray: Any, threads: int, gpus: float | None) -> tuple[float, float]:
    """Cores and GPUs that a stage asks for."""
    return threads, (1.0 if gpus is None else gpus) if ray.cluster_resources().get("GPU") else 0


def _lacks(ray: Any, threads: int, gpus: float | None) -> str:
    """That no node of the cluster has what a stage asks for, and what the largest has; empty where one has."""
    cores, of_gpu = _asked(ray, threads, gpus)
    if any(c >= cores and g >= of_gpu for g, c in _nodes(ray)):
        return ""
    most, most_of_gpu = _largest(ray)
    if of_gpu:
        return f"--threads is {threads} and --gpus {of_gpu:g}, and no node of the cluster has both: its largest has {most:g} CPU and {most_of_gpu:g} GPU"
    return f"--threads is {threads}, and no node of the cluster has as many: its largest has {most:g} CPU"


def _stays(ray: Any) -> bool:
    """Whether no node will be added by itself: Ray's monitor then has no types of nodes, but mirrors those there are, each as one of its own.

    No public function tells. False, too, where that is not known: Ray's second autoscaler (Kubernetes) reports nothing here, nor does a cluster that has just begun.
    """
    from ray.experimental.internal_kv import _internal_kv_get

    said = json.loads(_internal_kv_get("__autoscaling_status") or "{}")
    types = said.get("autoscaler_report", {}).get("node_type_mapping")
    return bool(types) and all(kind == f"node_{node}" for node, kind in types.items())


def _largest(ray: Any) -> tuple[float, float]:
    """Cores and GPUs of the node that has most of them."""
    return max(_nodes(ray), default=(0, 0))[::-1]


def _lost(what: str, **more: Any) -> dict[str, Any]:
    """What is recorded of a stage whose notebook cannot say why it failed."""
    return execute.StageFailed(what, where="the cluster", **more).facts


@dataclass
class _Sent:
    """What is under way on the cluster, and what was put there for it to read."""

    ray: Any
    threads: int
    gpus: float | None
    commit: str | None  # the caller's
    running: dict[Path, tuple[Task, contextlib.ExitStack, Any]] = field(default_factory=dict)
    packed: dict[Path, tuple[str, Any]] = field(default_factory=dict)
    lost: Counter[Path] = field(default_factory=Counter)
    alone: set[Path] = field(default_factory=set)  # stages that ran out of memory, which have a node to themselves now

    def send(self, task: Task, held: contextlib.ExitStack) -> None:
        """Send a stage whose lock is held; what it reads goes once for all that read it."""
        for need in task.needs:
            if need not in self.packed:
                data = _pack(need)
                self.packed[need] = hashlib.sha256(data).hexdigest(), self.ray.put(data)
        inputs = [(_place(need), *self.packed[need]) for need in task.needs]
        cores, gpus = _largest(self.ray) if task.folder in self.alone else _asked(self.ray, self.threads, self.gpus)
        perform = self.ray.remote(num_cpus=max(1, cores), num_gpus=gpus, max_retries=0)(_perform).options(name=task.name)  # Ray would try what does not fit for ever
        self.running[task.folder] = task, held, perform.remote(task.run.axes(), task.stage, inputs, _own_cards(), self.commit, self.threads)

    def back(self) -> Iterator[tuple[Task, contextlib.ExitStack, dict[str, Any] | None, bytes, float | None]]:
        """What came back by now, waiting a little: the stage, its lock, why it failed (or None), the bytes of what it wrote, its seconds.

        What was lost with its node or worker is sent again, `TRIES` times; what ran out of memory once, to have a node to itself.
        """
        by_reference = {reference: folder for folder, (*_, reference) in self.running.items()}
        ready, _ = self.ray.wait(list(by_reference), timeout=WAIT) if by_reference else ([], [])
        for reference in ready:
            task, held, _ = self.running.pop(by_reference[reference])
            data, seconds = b"", None
            try:
                facts, data, seconds = self.ray.get(reference)
            except self.ray.exceptions.RayTaskError as error:
                facts = _lost(f"{task.name} failed on its node: {error.cause}", error=str(error))
            except self.ray.exceptions.OutOfMemoryError as error:
                facts = _lost(f"{task.name} does not fit: its node had no memory left", error=str(error), out_of_memory=True)
            except self.ray.exceptions.RayError as error:
                self.lost[task.folder] += 1
                if self.lost[task.folder] <= TRIES:
                    self.send(task, held)
                    continue
                facts = _lost(f"the cluster lost {task.name} {TRIES + 1} times", error=str(error))
            if facts and facts["out_of_memory"]:
                facts["beside"] = 0
                if task.folder not in self.alone:
                    self.alone.add(task.folder)
                    self.send(task, held)
                    continue
            yield task, held, facts, data, seconds

    def forget(self, needed: set[Path]) -> None:
        """Let the cluster free what no stage will read any more."""
        for folder in set(self.packed) - needed:
            del self.packed[folder]


# ---------------------------------------------------------------- bytes


def _place(folder: Path) -> str:
    """Where a folder lies below the one that prepared data and runs are in."""
    return folder.relative_to(paths.prepared().parent).as_posix()


def _own_cards() -> dict[str, str]:
    """The YAML cards of the user's own data sets, without which a run on one means nothing on a node."""
    return {file.name: file.read_text(encoding="utf-8") for file in sorted(paths.own().glob("*.yaml"))}


def _pack(folder: Path, *beside: Path) -> bytes:
    """A folder, and files beside it, as a tar of the folder's parent: of the same content, the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for file in sorted(f for f in (*folder.rglob("*"), *beside) if f.is_file()):
            about = tarfile.TarInfo(file.relative_to(folder.parent).as_posix())
            about.size = file.stat().st_size
            with file.open("rb") as handle:
                tar.addfile(about, handle)
    return buffer.getvalue()


def _unpack(data: bytes, parent: Path) -> None:
    """Put what was packed below `parent`, each folder or file whole or not at all, in place of what was there; names that lead out of it are refused."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unpacked.", dir=parent) as temporary, tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.extractall(temporary, filter="data")
        for made in Path(temporary).iterdir():
            target = parent / made.name
            if target.is_dir():
                shutil.rmtree(target)
            made.rename(target)


# ---------------------------------------------------------------- on a node


def _perform(axes: dict[str, Any], stage: str, inputs: list[tuple[str, str, Any]], cards: dict[str, str], commit: str | None, threads: int) -> tuple[dict[str, Any] | None, bytes, float]:
    """Execute a stage in an empty folder of this node; returns why it failed (or None), what it wrote, packed, and the seconds it took."""
    start = time.perf_counter()
    if provenance.commit() != commit:
        raise RuntimeError(f"the project in {paths.root()} of this node is at {provenance.commit()}, the caller's is at {commit}: bring both to one commit")
    with tempfile.TemporaryDirectory(prefix="peftlab-") as folder, _environment(PEFTLAB_WORK=folder, OMP_NUM_THREADS=str(threads)):
        paths.own().mkdir()
        for name, text in cards.items():
            (paths.own() / name).write_text(text, encoding="utf-8")
        for place, digest, reference in inputs:
            _bring(Path(folder) / place, digest, reference)
        run = Run.from_dict(axes)
        task = Task(run, stage, records.stage_folder(run, stage))
        facts = None
        try:
            execute.execute(NOTEBOOKS[stage], run, task.copy)
        except execute.StageFailed as failed:
            facts = failed.facts
        return facts, _pack(task.folder, task.copy), time.perf_counter() - start


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    kept = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in kept.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _bring(folder: Path, digest: str, reference: Any) -> None:
    """Unpack what a stage reads; ValueError where it is not what was sent."""
    import ray

    data = ray.get(reference)
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"{folder.name} did not arrive as it was sent")
    _unpack(data, folder.parent)
