"""Who may import whom, and who alone may do what: DESIGN's storeys, held by walking the syntax of every module."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import peftlab
from peftlab import paths

LIB = Path(peftlab.__file__).parent

# A module imports from storeys below its own. `paths` is the floor: it imports nothing and everyone may import it.
STOREYS: dict[int, tuple[str, ...]] = {
    8: ("__main__",),
    7: ("report", "cluster"),
    6: ("execute", "blocks", "findings"),
    5: ("training", "inference", "estimates", "tables", "figures", "kernels"),
    4: ("datasets.*", "models.*", "methods.*", "features", "guards", "checkpoints", "probes", "stats", "style", "board", "forecast"),
    3: ("ledger", "dropout", "connectors", "metrics", "questions", "baselines", "tasks", "judge", "collected"),
    2: ("loading", "records", "answers", "grid", "assets", "metrics.*", "rows", "icons", "knowledge", "maps"),
    1: ("run", "provenance", "pictures", "ways", "lean"),
    0: ("datasets", "models", "methods", "paths"),
}
TORCH = ("training", "inference", "models.*", "methods.*", "features", "guards", "checkpoints", "ledger", "dropout", "loading", "lean", "connectors", "__main__")  # may import torch and its kin
KIN = ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "safetensors", "efficientnet_lite_pytorch", "gguf", "tokenizers")
CARDS = ("datasets", "models", "methods")


def modules() -> dict[str, Path]:
    """Every module of the library by its name below peftlab; a folder's __init__ by the folder's name."""
    found = {}
    for file in sorted(LIB.rglob("*.py")):
        parts = file.relative_to(LIB).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return {name: file for name, file in found.items() if name}


def group(module: str) -> str:
    """The name under which the tables above know a module: implementations by their folder."""
    return f"{module.partition('.')[0]}.*" if "." in module else module


def storey(module: str) -> int | None:
    """The storey of a module; None where the table does not know it."""
    return next((number for number, names in STOREYS.items() if group(module) in names), None)


def imports(tree: ast.AST, known: set[str]) -> set[tuple[str, int]]:
    """What a module imports, anywhere in it, with the line: our modules by their name below peftlab, others by their first name."""
    found: set[tuple[str, int]] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [b if b.removeprefix("peftlab.") in known else node.module or "." for b in below]
        else:
            continue
        found |= {(n, node.lineno) for n in names}
    return found


def violations(module: str, source: str, known: set[str]) -> list[str]:
    """What a module does that its place does not allow, a sentence each."""
    tree, wrong, own = ast.parse(source), [], storey(module)
    if own is None:
        return [f"{module} has no storey: give it one in tests/test_architecture.py and a line in the README's tree"]
    for name, line in sorted(imports(tree, known)):
        ours = name.removeprefix("peftlab.") if name.startswith("peftlab.") else None
        first = name.partition(".")[0]
        if ours is not None and ours != "paths" and (storey(ours) is None or storey(ours) >= own):
            wrong.append(f"{module}:{line} (storey {own}) imports {ours} (storey {storey(ours)})")
        if ours is not None and group(ours) in TORCH and group(module) not in TORCH:
            wrong.append(f"{module}:{line} is torch-free but imports {ours}, which imports torch")
        if name.startswith("."):
            wrong.append(f"{module}:{line} imports relatively: name the module in full")
        if first in KIN and group(module) not in TORCH:
            wrong.append(f"{module}:{line} imports {first}, but its storey is torch-free")
        if first == "papermill" and module != "execute":
            wrong.append(f"{module}:{line} imports papermill: only execute may")
    for node in ast.walk(tree):
        wrong += [f"{module}:{node.lineno} {sentence}" for sentence in _deeds(module, node)]
    return wrong


def _deeds(module: str, node: ast.AST) -> list[str]:
    """What only one module may do."""
    said = []
    text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
    attribute = node.attr if isinstance(node, ast.Attribute) else None
    called = ast.unparse(node.func) if isinstance(node, ast.Call) else None
    if module != "provenance" and text == "git":
        said.append("runs git: only provenance may")
    if module != "paths":
        if text in ("PEFTLAB_ROOT", "PEFTLAB_WORK", "PEFTLAB_CACHE"):
            said.append(f"reads {text}: only paths names folders")
        if called in ("Path", "pathlib.Path") and any(isinstance(a, ast.Name) and a.id == "__file__" for a in node.args):
            said.append("finds a folder from __file__: only paths names folders")
        if called in ("Path.home", "Path.cwd") or attribute == "expanduser":
            said.append(f"uses {called or attribute}: only paths names folders")
    if module != "style" and (attribute in ("rcParams", "rc_context", "rcdefaults") or called in ("plt.rc", "plt.style.use", "sns.set_theme", "sns.set_style", "matplotlib.rc")):
        said.append("sets rcParams: only style may")
    if module != "training" and isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.optim":
        said.append("uses torch.optim: only training steps an optimiser")
    if module not in ("records", "answers", "collected") and attribute in ("to_parquet", "ParquetWriter", "write_table"):
        said.append("writes Parquet: only records, answers and collected write results")
    if called in ("import_module", "importlib.import_module") and module not in (*CARDS, "__main__"):
        named = [a for a in node.args if "peftlab" in ast.unparse(a)]
        said += ["imports a module of ours by a computed name: only the cards may"] if named else []
    if called in ("eval", "exec", "pickle.load", "pickle.loads", "yaml.load_all", "os.system") or (called == "torch.load" and "weights_only=True" not in ast.unparse(node)):
        said.append(f"calls {called}: nothing read from disk may execute")
    return said


MODULES = modules()


@pytest.mark.parametrize("module", MODULES)
def test_a_module_stays_in_its_storey(module: str) -> None:
    assert violations(module, MODULES[module].read_text(), set(MODULES)) == []


PLANTED = [
    ("records", "from peftlab import metrics", "records:1 (storey 2) imports metrics (storey 3)"),
    ("records", "def f():\n    from peftlab.execute import run_grid", "records:2 (storey 2) imports execute (storey 6)"),
    ("methods.lora", "from peftlab.methods.ia3 import attach", "imports methods.ia3 (storey 4)"),
    ("methods.lora", "from peftlab.methods import ia3", "imports methods.ia3 (storey 4)"),
    ("methods.lora", "import peftlab.features", "imports features (storey 4)"),
    ("tables", "from peftlab import ledger", "tables:1 is torch-free but imports ledger"),
    ("tables", "from peftlab import figures", "tables:1 (storey 5) imports figures (storey 5)"),
    ("run", "from peftlab import provenance", "run:1 (storey 1) imports provenance (storey 1)"),
    ("report", "import torch.nn as nn", "report:1 imports torch, but its storey is torch-free"),
    ("records", "def f():\n    from safetensors.torch import load_file", "records:2 imports safetensors"),
    ("report", "import papermill", "only execute may"),
    ("tables", "from . import style", "imports relatively"),
    ("helpers", "", "helpers has no storey"),
    ("records", "import subprocess\nsubprocess.run(['git', 'status'])", "records:2 runs git"),
    ("grid", "import os\nos.environ['PEFTLAB_ROOT']", "grid:2 reads PEFTLAB_ROOT"),
    ("grid", "Path(__file__).parent", "grid:1 finds a folder from __file__"),
    ("figures", "import matplotlib as m\nm.rcParams['x'] = 1", "figures:2 sets rcParams"),
    ("guards", "import torch\ntorch.optim.SGD([])", "guards:2 uses torch.optim"),
    ("report", "frame.to_parquet('x')", "report:1 writes Parquet"),
    ("report", "import pyarrow.parquet as pq\npq.ParquetWriter('x', schema)", "report:2 writes Parquet"),
    ("grid", "import_module('peftlab.datasets.scenes')", "only the cards may"),
    ("models.pocket", "import torch\ntorch.load(file)", "models.pocket:2 calls torch.load"),
]


@pytest.mark.parametrize(("module", "source", "sentence"), PLANTED)
def test_a_planted_violation_is_found(module: str, source: str, sentence: str) -> None:
    assert any(sentence in wrong for wrong in violations(module, source, set(MODULES) | {"figures", "ledger", "methods.ia3"}))


def test_what_is_allowed_is_not_a_violation() -> None:
    assert violations("methods.lora", "import torch\nfrom peftlab import methods, paths\nfrom peftlab.models import Loaded\nfrom peftlab.run import Run", set(MODULES)) == []
    assert violations("execute", "def f():\n    import papermill\nfrom peftlab import records", set(MODULES)) == []


def test_every_module_of_the_table_exists() -> None:
    named = {name for names in STOREYS.values() for name in names if not name.endswith(".*")}
    assert named - set(MODULES) == set()


def test_every_package_that_is_imported_is_declared_and_locked() -> None:
    """What an import needs is asked for by name: a dependency of a dependency may go away."""
    root = paths.root()
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    declared, extra, test = (
        {_plain(re.match(r"[\w.-]+", line)[0]) for line in lines} for lines in (project["dependencies"], *(project["optional-dependencies"][name] for name in ("cluster", "test")))
    )
    tested = (declared | extra | test) - {"peftlab"}  # one extra asks for another
    locked = {_plain(line.partition("==")[0]) for line in (root / "requirements.lock").read_text().splitlines()}
    files = [(file, declared | extra if name == "cluster" else declared) for name, file in MODULES.items()] + [(file, tested) for file in (root / "tests").rglob("*.py")]
    of = metadata.packages_distributions()
    for file, allowed in files:
        for name, line in imports(ast.parse(file.read_text()), set(MODULES)):
            first = name.partition(".")[0]
            if first not in sys.stdlib_module_names and first not in ("peftlab", "bench"):
                distributions = {_plain(d) for d in of.get(first, [])}
                assert distributions & allowed, f"{file}:{line} imports {first}, of {distributions or 'no installed package'}, which pyproject.toml does not ask for"
    assert tested <= locked


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


def test_the_torch_free_side_imports_without_torch() -> None:
    """The imports that happen, not only those that are written: results can be scored and reported without torch."""
    free = [m for m in MODULES if group(m) not in TORCH and m != "kernels"]
    code = f"import sys, importlib\nfor m in {free!r}: importlib.import_module('peftlab.' + m)\nassert 'torch' not in sys.modules, sorted(m for m in sys.modules if m.startswith('torch'))[:3]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
