"""How long a notebook takes to its first useful line, and what a run costs that is not its work."""

import tempfile
import time
from pathlib import Path

import nbformat
import papermill

from bench.pairs import Pair, in_turn
from peftlab import kernels

IMPORTS = "import torch, transformers, peft, datasets, pandas\nassert torch.ones(2).sum() == 2"


def measure() -> list[Pair]:
    """A notebook that imports what ours import and does nothing, in a kernel of each kind."""
    cell = nbformat.v4.new_code_cell(IMPORTS)
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}})
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "empty.ipynb", Path(folder) / "out.ipynb"
        nbformat.write(notebook, source)

        def seconds(**how: object) -> float:
            start = time.perf_counter()
            papermill.execute_notebook(source, output, progress_bar=False, **how)
            return time.perf_counter() - start

        seconds(kernel_manager_class=kernels.WarmKernelManager)  # the fork server imports once for all
        ours, peer = in_turn(lambda: seconds(kernel_manager_class=kernels.WarmKernelManager), lambda: seconds(kernel_name="python3"), rounds=5)
    return [Pair("an empty notebook that imports torch, transformers, peft", ours, peer, "plain papermill")]
