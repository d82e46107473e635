"""A study on a real Ray cluster of two nodes on this machine: its scores are those of one machine, and a killed node's stages are done elsewhere."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import psutil
import pytest

from peftlab import __main__, board, cluster, execute, paths, provenance, records, tasks
from peftlab.grid import Study
from peftlab.run import Run

pytest.importorskip("ray")
TINY = {"model": "tiny-mlp", "precision": "fp32", "test_size": 8, "probe_size": 6}


def study(*runs: Run, stages: tuple[str, ...] = ("finetune", "evaluate")) -> Study:
    """A study of these runs."""
    return Study("tiny", "a test", stages, runs)


def run(method: str, steps: int = 3, **axes: object) -> Run:
    """A run of the tiny model."""
    return Run(**{**TINY, "method": method, "steps": steps, **axes})


@pytest.fixture(scope="module")
def nodes(eventually: Callable[..., bool]) -> Iterator[Any]:
    """A cluster whose head does no work, and two nodes of a core each; nothing of it is left."""
    os.environ["RAY_worker_niceness"] = "0"  # Ray's own 15 starves beside whatever else these cores do
    others = left()
    made = started(others)
    yield made
    made.shutdown()
    assert eventually(lambda: set(left()) <= set(others), seconds=30), f"processes of the cluster are left: {left()}"


def started(others: Sequence[psutil.Process], tries: int = 3) -> Any:
    """Such a cluster, tried a few times: Ray waits half a minute for a node to start, which on busy cores is not always enough."""
    from ray.cluster_utils import Cluster

    for more in reversed(range(tries)):
        made = Cluster()
        try:
            for cores in (0, 1, 1):
                made.add_node(num_cpus=cores, include_dashboard=False)
            made.wait_for_nodes()
            return made
        except Exception:
            with contextlib.suppress(Exception):
                made.shutdown()
            for process in set(left()) - set(others):
                with contextlib.suppress(psutil.Error):
                    process.kill()
            if not more:
                raise
    raise AssertionError("no try was made")


def left() -> list[psutil.Process]:
    """What of Ray still runs below this process, or was left by what did."""
    return [p for p in psutil.process_iter(["name", "username"]) if p.info["name"].startswith(("ray", "gcs_server")) and p.info["username"] == psutil.Process().username() and alive(p)]


def answers(of: Run) -> pd.DataFrame:
    """What a run answered."""
    return pd.read_parquet(records.stage_folder(of, "evaluate") / "predictions.parquet")


def alive(process: psutil.Process) -> bool:
    """Whether it runs: neither gone nor a zombie."""
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def kernels_below(pid: int) -> list[psutil.Process]:
    """The notebook kernels that a node's workers have forked: the children of their fork servers."""
    below = [p for p in psutil.Process(pid).children(recursive=True) if alive(p)]
    servers = {p.pid for p in below if any("runpy" in word for word in command(p))}
    return [p for p in below if parent(p) in servers]


def command(process: psutil.Process) -> list[str]:
    """What it was started with; nothing where it is gone."""
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []


def parent(process: psutil.Process) -> int | None:
    """Its parent's id; None where it is gone."""
    with contextlib.suppress(psutil.Error):
        return process.ppid()
    return None


GRID = """
study: tiny
why: A test.
stages: [finetune, evaluate]
expect: 3
base: {model: tiny-mlp, precision: fp32, test_size: 8, steps: 60}
grids: [{method: [none, lora, ia3]}]
"""


def test_a_cluster_gives_the_scores_of_one_machine_though_a_node_is_killed(nodes: Any, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., bool]) -> None:
    runs = [run("none", 60), run("lora", 60), run("ia3", 60)]
    alone = tmp_path / "alone"
    shutil.copytree(tiny_data / "prepared", alone / "prepared")

    grid = tmp_path / "tiny.yaml"
    grid.write_text(GRID)
    victim = nodes.list_all_nodes()[-1].all_processes["raylet"][0].process
    with subprocess.Popen([sys.executable, "-m", "peftlab", "run", str(grid), "--plain", "--on", nodes.address], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as executor:
        try:
            assert eventually(lambda: kernels_below(victim.pid), seconds=200), "the node was given nothing"
            processes = psutil.Process(victim.pid).children(recursive=True)
            victim.kill()
            said = executor.communicate(timeout=300)[0]
        finally:
            executor.kill()
    assert said.splitlines()[-1] == "5 done, 1 skipped, 0 failed, 0 blocked, 0 stale, 0 does not fit", said
    assert eventually(lambda: not any(alive(p) for p in processes), seconds=30), "a process outlives its node"
    assert not list(paths.runs().rglob(".*")), "something of the lost stages is left"
    assert not list(paths.runs().rglob("*.failure.json"))

    scores = [answers(of) for of in runs]
    monkeypatch.setenv("PEFTLAB_WORK", str(alone))
    assert execute.run_grid(study(*runs), live=False)["done"] == 5
    for of, score in zip(runs, scores, strict=True):
        pd.testing.assert_frame_equal(answers(of), score)


def test_what_fails_on_a_node_is_recorded_here_and_the_others_go_on(nodes: Any, tiny_data: Path) -> None:
    bad, good = run("lora", train_size=1000), run("none")
    assert cluster.run_grid(study(bad, good), nodes.address, live=False) == {"done": 1, "skipped": 1, "failed": 1, "blocked": 1, "stale": 0, "does not fit": 0}
    failure = json.loads((paths.runs() / bad.id / "finetune.failure.json").read_text())
    assert "1000 examples asked of icons_choice/train, which has 48" in failure["error"] and failure["where"] == "02_finetune.ipynb"
    assert (paths.runs() / bad.id / "finetune.ipynb").exists()
    assert board.status(study(bad, good))["failed"] == 1
    assert cluster.run_grid(study(good), nodes.address, live=False)["skipped"] == 2


def test_a_cluster_that_is_not_there_is_a_sentence(tiny_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(execute, "advance", None)  # nothing may come that far
    for more, said in ((["127.0.0.1:1"], "no Ray cluster answers at '127.0.0.1:1'"), (["ray://127.0.0.1:1"], "no Ray cluster answers"), (["auto", "--threads", "0"], "--threads is 0"), (["auto", "--gpus", "-1"], "--gpus is -1")):
        assert __main__.main(["run", "smoke", "--on", *more]) == 2
        assert said in capsys.readouterr().err
    assert __main__.main(["run", "smoke", "--on", ""]) == 2 and "--on is empty; ray (this machine)" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "ray", None)
    assert __main__.main(["run", "smoke", "--on", "auto"]) == 2
    assert "pip install 'peftlab[cluster]'" in capsys.readouterr().err


def test_more_cores_than_any_node_has_are_refused_where_no_node_will_be_added(nodes: Any, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], eventually: Callable[..., bool]) -> None:
    import ray

    monkeypatch.setattr(execute, "advance", None)  # nothing may come that far
    with cluster._connected(ray, nodes.address):
        assert eventually(lambda: cluster._stays(ray), seconds=60), "Ray's monitor no longer says that it mirrors the nodes"
        assert __main__.main(["run", "smoke", "--on", nodes.address, "--threads", "2"]) == 2
        said = capsys.readouterr().err
        assert "--threads is 2, and no node of the cluster has as many: its largest has 1 CPU. Ask for what one node has (--threads, --gpus), or name another cluster (--on)" in said
        assert cluster._lacks(ray, 1, None) == ""


def test_a_node_that_may_still_come_is_waited_for(tiny_data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from ray.experimental import internal_kv

    there = [{"Alive": True, "Resources": {"CPU": 64.0}}, {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 4.0}}]
    ray = SimpleNamespace(nodes=lambda: there, cluster_resources=lambda: {"CPU": 72.0, "GPU": 4.0})
    assert cluster._lacks(ray, 8, None) == cluster._lacks(ray, 8, 4) == "", "one node has both"
    assert cluster._lacks(ray, 16, 0.5) == "--threads is 16 and --gpus 0.5, and no node of the cluster has both: its largest has 8 CPU and 4 GPU"
    for types, stays in (({"a1": "node_a1", "b2": "node_b2"}, True), ({"a1": "node_a1", "b2": "worker"}, False), ({"a1": "ray.head.default"}, False), ({}, False), (None, False)):
        said = None if types is None else json.dumps({"autoscaler_report": {"node_type_mapping": types}}).encode()
        monkeypatch.setattr(internal_kv, "_internal_kv_get", lambda key, said=said: said)
        assert cluster._stays(ray) is stays, types
    asked, more = [], {"Alive": True, "Resources": {"CPU": 16.0, "GPU": 1.0}}
    monkeypatch.setattr(cluster, "_ray", lambda: ray)
    monkeypatch.setattr(cluster, "_connected", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(cluster._Sent, "send", lambda self, task, held: self.running.update({task.folder: (task, held, None)}))

    def back(self: cluster._Sent) -> Iterator[Any]:
        asked.append(cluster._lacks(ray, 16, None))
        there.append(more)
        for task, held, _ in [self.running.pop(folder) for folder in list(self.running)] if len(asked) > 1 else ():
            yield task, held, execute.StageFailed("a test", where="the cluster").facts, b"", 1.0

    monkeypatch.setattr(cluster._Sent, "back", back)
    of = study(run("none"))
    assert cluster.run_grid(of, "auto", threads=16, live=False)["failed"] == 1
    assert asked[0] and not asked[1]
    assert capsys.readouterr().out.count(f"waiting for another node: {asked[0]}") == 1
    del there[2:]
    with pytest.raises(ValueError, match="--threads is 16 and --gpus 1, and no node"):
        cluster.run_grid(of, cluster.LOCAL, threads=16, live=False)


def test_what_is_lost_is_sent_again_a_few_times_and_what_does_not_fit_once_to_a_node_of_its_own(tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    of = run("none")
    (task,) = [t for t in tasks.plan(study(of)) if t.stage == "evaluate"]
    ends = iter([ray.exceptions.WorkerCrashedError(), ray.exceptions.NodeDiedError("gone")] * 2 + [ray.exceptions.OutOfMemoryError("full")] * 2)

    def get(reference: object) -> None:
        raise next(ends)

    answering = SimpleNamespace(wait=lambda given, timeout: (given, []), get=get, exceptions=ray.exceptions)
    sent, again = cluster._Sent(answering, 1, None, None), []
    monkeypatch.setattr(sent, "send", lambda task, held: again.append(sent.running.update({task.folder: (task, held, object())})))
    for times, what, memory in ((cluster.TRIES, f"the cluster lost {task.name} {cluster.TRIES + 1} times", False), (1, f"{task.name} does not fit", True)):
        again.clear()
        sent.send(task, contextlib.ExitStack())
        while not (came := list(sent.back())):
            pass
        ((_, _, facts, data, _),) = came
        assert len(again) == 1 + times and facts["what"].startswith(what) and facts["out_of_memory"] is memory and data == b"" and not sent.running
        assert sent.alone == ({task.folder} if memory else set()) and facts.get("beside") == (0 if memory else None)
    task.failure.parent.mkdir(parents=True)
    tasks.States().fail(task, facts)
    assert records.unfit(of, "evaluate")["what"] == facts["what"]


def test_a_stage_alone_asks_for_the_largest_node() -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 64.0}}, {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 4.0}}, {"Alive": False, "Resources": {"CPU": 8.0, "GPU": 8.0}}]
    assert cluster._largest(SimpleNamespace(nodes=lambda: nodes)) == (8.0, 4.0) and cluster._largest(SimpleNamespace(nodes=lambda: nodes[:1])) == (64.0, 0)


def test_a_node_at_another_commit_does_nothing(tiny_data: Path) -> None:
    of = run("none")
    with pytest.raises(RuntimeError, match="is at .*, the caller's is at 0000000: bring both to one commit"):
        cluster._perform(of.axes(), "evaluate", [], {}, "0000000", 1)
    assert provenance.commit() != "0000000" and not paths.runs().exists()


def test_folders_travel_whole_by_their_content_and_stay_inside(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "x").write_bytes(b"content")
    packed = cluster._pack(tmp_path / "one")
    assert packed == cluster._pack(tmp_path / "one"), "the same content gives other bytes"
    there = tmp_path / "there"
    (there / "one" / "old").mkdir(parents=True)
    cluster._unpack(packed, there)
    assert [p.relative_to(there).as_posix() for p in sorted(there.rglob("*"))] == ["one", "one/deep", "one/deep/x"]

    about = tarfile.TarInfo("../climbs")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.addfile(about)
    with pytest.raises(tarfile.OutsideDestinationError):
        cluster._unpack(buffer.getvalue(), there)
    assert not (tmp_path / "climbs").exists() and [p.name for p in there.iterdir()] == ["one"]
