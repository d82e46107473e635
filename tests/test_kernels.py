"""Warm kernels: fresh processes that can compute, see nothing of the project, and leave no orphan."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest
from nbclient import NotebookClient

from peftlab import kernels

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kernels are forked on Linux only")


FEW = ("ipykernel.kernelapp", "ipykernel.ipkernel")  # for tests of processes alone: no seconds of other imports


def ran(*sources: str) -> list[str]:
    """What each cell printed, executed in one warm kernel."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    NotebookClient(notebook, kernel_name="python3", kernel_manager_class=kernels.WarmKernelManager, timeout=120).execute()
    return ["".join(o.get("text", "") or ",".join(o.get("data", {})) for o in cell.outputs).strip() for cell in notebook.cells]


def gone(pid: int) -> bool:
    """Whether a process has ended; a zombie that nobody has waited for has."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_warm_kernel_has_torch_and_nothing_of_ours() -> None:
    (said,) = ran("import sys; print('torch' in sys.modules, [m for m in sys.modules if m.split('.')[0] == 'peftlab'])")
    assert said == "True []"


def test_a_warm_kernel_computes_reads_parquet_and_shows_figures(tmp_path: Path) -> None:
    product, table, figure = ran(
        "import torch; a = torch.ones(600, 600); b = (a @ a).bfloat16(); print(float((b @ b)[0, 0]))",
        f"import pandas as pd; pd.DataFrame({{'a': range(1000)}}).to_parquet('{tmp_path}/a.parquet'); print(pd.read_parquet('{tmp_path}/a.parquet').a.sum())",
        "import matplotlib.pyplot as plt; plt.plot([1, 2]);",
    )
    assert float(product) == pytest.approx(600**3, rel=0.01)
    assert table == "499500"
    assert "image/png" in figure


def test_threads_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for threads in ("2", "1"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        assert ran("import torch; print(torch.get_num_threads())") == [threads]


def test_each_kernel_is_a_process_of_its_own_with_a_random_state_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PEFTLAB_MARK", "here")
    source = "import os, random, numpy as np; print(os.getpid(), random.random(), np.random.rand(), os.getcwd(), os.environ['PEFTLAB_MARK'])"
    first, second = (ran(source)[0].split() for _ in range(2))
    assert all(a != b for a, b in zip(first[:3], second[:3], strict=True))
    assert first[3:] == second[3:] == [str(tmp_path), "here"]


def test_a_kernel_that_is_killed_is_dead_with_its_signal() -> None:
    parent = kernels.server()
    kernel = kernels.ForkedKernel(parent, parent.ask(fork=["-f", str(parent.folder / "alone.json")], environment=dict(os.environ), cwd="/"))
    assert kernel.poll() is None
    kernel.kill()
    assert kernel.wait() == -signal.SIGKILL == kernels.last_exit()


def test_kernels_die_with_their_server(eventually: Callable[..., bool]) -> None:
    parent = kernels.ForkServer(FEW)
    pid = parent.ask(fork=["-f", str(parent.folder / "alone.json")], environment=dict(os.environ), cwd="/")
    assert not gone(pid)
    parent.process.kill()
    assert eventually(lambda: gone(pid)), "the kernel outlives its server"
    assert kernels.ForkedKernel(parent, pid).poll() == -signal.SIGKILL
    parent.close()
    assert not parent.folder.exists()


ORPHANS = """
import asyncio, os, time
from peftlab import kernels
manager = kernels.WarmKernelManager()
asyncio.run(manager.start_kernel())
print(kernels.server().process.pid, manager.provisioner.pid, kernels.server().folder, flush=True)
time.sleep(600)
"""


def test_the_answer_to_an_interrupted_request_is_not_taken_for_that_of_the_next(tmp_path: Path) -> None:
    def interrupt() -> str:
        raise KeyboardInterrupt

    parent = kernels.ForkServer(FEW)
    try:
        usual = parent._stream
        parent._stream = SimpleNamespace(write=usual.write, flush=usual.flush, readline=interrupt)
        with pytest.raises(KeyboardInterrupt):
            parent.ask(fork=["-f", str(tmp_path / "no-kernel.json")], environment=dict(os.environ), cwd=str(tmp_path))
        parent._stream = usual
        assert parent.ask(poll=os.getpid()) is None, "what was answered is the process that was forked"
    finally:
        parent.close()
    with pytest.raises(RuntimeError, match="the fork server is gone"):
        parent.ask(poll=os.getpid())


def test_no_kernel_outlives_a_sigkill_of_the_executor(eventually: Callable[..., bool]) -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True) as executor:
        server, kernel, folder = executor.stdout.readline().split()
        assert not gone(int(server)) and not gone(int(kernel)) and Path(folder).exists()
        executor.kill()
    assert eventually(lambda: gone(int(kernel))), "the kernel outlives the executor"
    assert eventually(lambda: gone(int(server))), "the fork server outlives the executor"
    assert not Path(folder).exists()


def test_nothing_is_left_of_kernels_that_are_forked_and_write_as_their_server_ends() -> None:
    parent, pids = kernels.ForkServer(FEW), []
    for wait in [0.02] * 20 + [0] * 4:  # it ends between a kernel's files, before its first one, before it leads a group of its own
        file = parent.folder / f"{len(pids)}.json"
        pids.append(parent.ask(fork=["-f", str(file), "--transport=ipc"], environment=dict(os.environ), cwd="/"))
        time.sleep(wait)
    parent._socket.shutdown(socket.SHUT_RDWR)  # what the executor's death does
    assert parent.process.wait(20) == 0
    assert all(gone(pid) for pid in pids)
    assert not parent.folder.exists()
    parent.close()


def test_only_python_kernels_are_forked() -> None:
    manager = kernels.WarmKernelManager()
    provisioner = kernels.ForkProvisioner(kernel_spec=manager.kernel_spec, parent=manager)
    with pytest.raises(ValueError, match="starts Python kernels only; the kernel's command is R --slave"):
        provisioner.launch_kernel(["R", "--slave"]).send(None)


def test_a_server_with_stale_code_or_with_cuda_does_not_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "peftlab" in kernels._forkable()["error"]  # this process has imported it
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: True)))
    assert "CUDA" in kernels._forkable()["error"]


def test_where_there_is_a_gpu_nothing_is_preloaded_that_asks_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([self / "nvidia0"]))
    assert {"torch", "transformers"} <= set(kernels.preload()) and not {"peft", "bitsandbytes"} & set(kernels.preload())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert {"peft", "bitsandbytes"} <= set(kernels.preload())


def test_kernels_are_cold_where_asked_and_always_of_this_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels.manager_class() is kernels.WarmKernelManager
    monkeypatch.setenv("PEFTLAB_COLD_KERNELS", "1")
    assert kernels.manager_class() is kernels.ColdKernelManager
    assert kernels.ColdKernelManager().kernel_spec.argv[0] == sys.executable
    assert kernels.ColdKernelManager().kernel_name == kernels.WarmKernelManager().kernel_name == "python3"
