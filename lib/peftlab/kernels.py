"""Jupyter kernels forked from a process that has already imported torch.

A cold kernel spends 8-10 s on imports before its first useful line; a forked one starts in about 0.6 s and is still a fresh
process per notebook. A fork server, started with the first kernel, imports what the notebooks import (never this project's
code: it would be stale), computes nothing, and forks when asked. It dies with the process that started it, and the kernels
die with it. Linux only: `manager_class` gives ordinary kernels elsewhere, or where ``PEFTLAB_COLD_KERNELS=1``.
"""

import atexit
import contextlib
import ctypes
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.provisioning import LocalProvisioner
from traitlets import default

PROVISIONER = "peftlab-fork"  # the entry point's name in pyproject.toml

PRELOAD_GPU = (
    "torch", "transformers", "transformers.models.llama.modeling_llama", "transformers.models.llava.modeling_llava",
    "transformers.models.llava.processing_llava", "transformers.models.clip.image_processing_pil_clip", "transformers.models.auto.modeling_auto",
    "transformers.generation.utils", "safetensors.torch", "numpy", "ipykernel.kernelapp", "ipykernel.ipkernel", "matplotlib_inline.config",
)  # fmt: skip
PRELOAD = (
    *PRELOAD_GPU, "peft", "bitsandbytes", "accelerate", "pandas", "pyarrow.parquet", "pyarrow.dataset", "datasets", "matplotlib.pyplot",
    "PIL.Image", "PIL.PngImagePlugin", "scipy.stats", "rich.console", "yaml", "efficientnet_lite_pytorch", "tokenizers", "tqdm.auto", "tqdm.notebook",
)  # fmt: skip


# run as a file, this module would put its folder, whose `datasets` hides the library, on the path; as a module, import peftlab
START = "import runpy, sys; del sys.path[0], sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"


class ForkServer:
    """The executor's end of a fork server: one process, one socket, and the folder of its kernels' connection files."""

    def __init__(self, imports: Iterable[str] | None = None) -> None:
        """Start it; it imports the modules named in `imports`, or what `preload` says."""
        self.folder = Path(tempfile.mkdtemp(prefix="peftlab-", dir=_short_temporary_folder()))
        ours, theirs = socket.socketpair()
        environment = {**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}  # read when matplotlib is imported
        with (self.folder / "server.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, __file__, str(theirs.fileno()), str(self.folder), *(preload() if imports is None else imports)],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=self.folder, start_new_session=True,
            )  # fmt: skip
        theirs.close()
        self._socket, self._stream, self._lock, self._asked = ours, ours.makefile("rw", encoding="utf-8"), threading.Lock(), 0

    def ask(self, **request: Any) -> Any:
        """The server's answer to `request`; RuntimeError with the end of its log where it refuses or is gone.

        Requests are numbered: the answer to one that was interrupted before it was read is not taken for that of the next.
        """
        answer: dict[str, Any] = {}
        with self._lock, contextlib.suppress(OSError, ValueError):  # ValueError: closed by this process
            self._asked += 1
            self._stream.write(json.dumps({**request, "number": self._asked}) + "\n")
            self._stream.flush()
            while answer.get("number") != self._asked and (line := self._stream.readline()):
                answer = json.loads(line)
        if answer.get("number") != self._asked:
            answer = {"error": f"the fork server is gone; its log ends: {self.log()}"}
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["value"]

    def log(self) -> str:
        """The last lines that the server and its kernels wrote to their terminals."""
        file = self.folder / "server.log"
        return file.read_text(errors="replace")[-2000:].strip() if file.exists() else ""

    def alive(self) -> bool:
        """Whether the server's process runs."""
        return self.process.poll() is None

    def close(self) -> None:
        """End the server and every kernel of it, and remove its folder."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._stream.close()
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(5)
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


_server: ForkServer | None = None
_starting = threading.Lock()
_last = threading.local()  # notebooks may run side by side, a thread each


def server() -> ForkServer:
    """This process's fork server, started on the first call; it needs some seconds of imports before its first fork."""
    global _server
    with _starting:
        if _server is None or not _server.alive():
            shut_down()
            _server = ForkServer()
        return _server


@atexit.register
def shut_down() -> None:
    """End this process's fork server, where there is one, and every kernel of it."""
    global _server
    if _server is not None:
        _server.close()
        _server = None


def last_exit() -> int | None:
    """The exit code of the warm kernel that this thread asked about last, minus the signal that ended it; None while it runs."""
    return getattr(_last, "exit", None)


class ForkedKernel:
    """A kernel process that the fork server owns, with the face of `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, parent: ForkServer, pid: int) -> None:
        self.parent, self.pid, self.returncode = parent, pid, None

    def poll(self) -> int | None:
        """None while it runs; afterwards its exit code, or minus the signal that ended it."""
        if self.returncode is None:
            try:
                self.returncode = self.parent.ask(poll=self.pid)
            except RuntimeError:
                self.returncode = -signal.SIGKILL  # the server is gone, and its kernels with it
            _last.exit = self.returncode
        return self.returncode

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        while self.poll() is None:
            time.sleep(0.02)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)


class ForkProvisioner(LocalProvisioner):
    """A kernel provisioner that forks ipykernel from this process's fork server instead of starting an interpreter."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Fork a kernel; `cmd` must be ipykernel's launcher, whose arguments are passed on."""
        if "ipykernel_launcher" not in cmd:
            raise ValueError(f"the provisioner {PROVISIONER} starts Python kernels only; the kernel's command is {' '.join(cmd)}")
        arguments = cmd[cmd.index("ipykernel_launcher") + 1 :]
        environment = kwargs.get("env") or dict(os.environ)
        self.cwd = kwargs.get("cwd") or os.getcwd()
        parent = server()
        self.pid = self.pgid = parent.ask(fork=arguments, environment=environment, cwd=str(self.cwd))
        self.process = ForkedKernel(parent, self.pid)
        return self.connection_info


class _ThisPython(AsyncKernelManager):
    """A manager whose `python3` is the interpreter that runs us, whatever kernels a user has installed."""

    metadata: dict[str, Any] = {}

    @property
    def kernel_spec(self) -> KernelSpec:
        """ipykernel's own specification for this interpreter."""
        if self._kernel_spec is None:
            given = get_kernel_dict()
            given["metadata"] = {**given["metadata"], **self.metadata}
            self._kernel_spec = KernelSpec(resource_dir=str(RESOURCES), name="python3", **given)
        return self._kernel_spec


class ColdKernelManager(_ThisPython):
    """Ordinary kernels: a new interpreter each."""


class WarmKernelManager(_ThisPython):
    """Forked kernels, over sockets in the fork server's private folder: no port is raced for."""

    metadata = {"kernel_provisioner": {"provisioner_name": PROVISIONER}}

    @default("transport")
    def _transport_default(self) -> str:
        return "ipc"

    @default("connection_file")
    def _connection_file_default(self) -> str:
        return str(server().folder / f"{self.kernel_id or os.urandom(8).hex()}.json")


def manager_class() -> type[AsyncKernelManager]:
    """The kernel manager for nbclient and papermill on this machine: warm on Linux, cold elsewhere or when asked for."""
    warm = sys.platform == "linux" and os.environ.get("PEFTLAB_COLD_KERNELS") != "1"
    return WarmKernelManager if warm else ColdKernelManager


def warm_up() -> None:
    """Start the fork server without waiting for its imports, where kernels are warm."""
    if manager_class() is WarmKernelManager:
        server()


def preload() -> tuple[str, ...]:
    """What a fork server imports: little where there is a GPU, since `import peft` makes bitsandbytes ask CUDA."""
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1") and any(Path("/dev").glob("nvidia[0-9]*"))
    return PRELOAD_GPU if gpu else PRELOAD


def _short_temporary_folder() -> str:
    """A folder for sockets: a socket's path may have 107 bytes."""
    usual = tempfile.gettempdir()
    return usual if len(usual) <= 30 else "/tmp"


# ---------------------------------------------------------------- in the fork server's process


def _serve(connection: socket.socket, folder: Path, imports: Iterable[str]) -> None:
    """Import, then answer requests until the other end closes; kill what is left, remove the folder."""
    for name in imports:
        with contextlib.suppress(ImportError):  # a smaller installation only starts slower
            importlib.import_module(name)
    import gc

    gc.collect()
    gc.freeze()  # the collector of a kernel leaves these objects, and their memory pages, alone
    owner, ended, running = os.getpid(), dict[int, int](), set[int]()
    requests = connection.makefile("r", encoding="utf-8")
    while line := requests.readline():
        request = json.loads(line)
        if "fork" in request:
            answer = _forkable()
            if not answer:
                pid = os.fork()
                if pid == 0:
                    connection.detach()
                    _become_kernel(request, parent=owner, close=requests.close)
                running.add(pid)
                answer = {"value": pid}
        else:
            answer = {"value": ended.get(request["poll"])}
            if answer["value"] is None and request["poll"] in running:
                pid, status = os.waitpid(request["poll"], os.WNOHANG)
                if pid:
                    running.discard(pid)
                    answer["value"] = ended[pid] = os.waitstatus_to_exitcode(status)
        connection.sendall((json.dumps({**answer, "number": request["number"]}) + "\n").encode())
    for pid in running:
        os.kill(pid, signal.SIGKILL)  # itself first: it may not lead a group yet
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    for pid in running:
        os.waitpid(pid, 0)  # until it is dead, a kernel that starts writes into the folder
    shutil.rmtree(folder, ignore_errors=True)


def _forkable() -> dict[str, str]:
    """Nothing, or why this process must not fork: CUDA in use (children could not use it), or code that may be stale."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return {"error": "the fork server has initialised CUDA, so its kernels could not use a GPU: set PEFTLAB_COLD_KERNELS=1"}
    stale = sorted(name for name in sys.modules if name.partition(".")[0] == "peftlab")
    return {"error": f"the fork server has imported {', '.join(stale)}: kernels would run stale code"} if stale else {}


def _become_kernel(request: dict[str, Any], *, parent: int, close: Callable[[], None]) -> None:
    """Turn this forked process into an ordinary ipykernel; never returns."""
    code = 1
    try:
        close()
        os.setsid()
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: a kernel does not outlive its server
        if os.getppid() != parent:
            os._exit(1)
        os.environ.clear()
        os.environ.update(request["environment"])
        for name in ("JPY_PARENT_PID", "JPY_INTERRUPT_EVENT"):
            os.environ.pop(name, None)  # they speak of another parent
        os.chdir(request["cwd"])
        _fresh_state()
        from ipykernel.kernelapp import IPKernelApp

        sys.argv = ["ipykernel_launcher", *request["fork"]]
        IPKernelApp.launch_instance(argv=request["fork"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _fresh_state() -> None:
    """Undo what a new interpreter would not have: another environment's thread count, one random state for all, a plain shell."""
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None:  # the environment's value was read when torch was imported: it comes too late here
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or torch.get_num_threads()))
    if numpy is not None:
        numpy.random.seed()
    sys.modules.pop("matplotlib_inline.backend_inline", None)  # imported again, it finds this kernel's shell and shows figures


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2]), sys.argv[3:])
