"""Notebooks: pages that hold no logic, whose parameters are Run's, and that run under plain papermill from anywhere."""

import ast
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import nbformat
import pandas as pd
import papermill
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from peftlab import execute, kernels, paths, records, tasks
from peftlab.run import CONTROLS, Run

EVERY = sorted(paths.notebooks().glob("*.ipynb"))
PIPELINE = [paths.notebooks() / f"{name}.ipynb" for name in tasks.NOTEBOOKS.values()]
LONGEST, CELLS = 12, 30  # lines of a code cell (the parameters cell apart: an axis a line), cells of a notebook


def read(file: Path) -> nbformat.NotebookNode:
    """A notebook as it lies in the repository."""
    return nbformat.read(file, as_version=nbformat.NO_CONVERT)


def tags(cell: nbformat.NotebookNode) -> list[str]:
    """The tags of a cell."""
    return cell.metadata.get("tags", [])


def faults(source: str) -> Iterator[str]:
    """What a cell holds that belongs in the library, or that a page has no use for."""
    if any(line.lstrip().startswith(("!", "%")) for line in source.splitlines()):
        yield "a shell command or a magic"
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Try | ast.While):
            yield type(node).__name__
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and (node.value.id, node.attr) in (("sys", "path"), ("os", "system")):
            yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Name) and node.id in ("get_ipython", "subprocess", "exec", "eval"):
            yield node.id


def test_there_are_notebooks() -> None:
    assert len(PIPELINE) == 4 and set(PIPELINE) <= set(EVERY)


@pytest.mark.parametrize("file", EVERY, ids=lambda f: f.stem)
def test_a_notebook_is_a_page(file: Path) -> None:
    notebook = read(file)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor >= 5) == (4, True), "cells need ids"
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids) <= CELLS
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None, f"{cell.id} has outputs: clear them"
            assert "parameters" in tags(cell) or len(cell.source.splitlines()) <= LONGEST, f"{cell.id} is too long: move it to the library"
            assert not list(faults(cell.source)), f"{cell.id} holds {', '.join(faults(cell.source))}"


@pytest.mark.parametrize("file", PIPELINE, ids=lambda f: f.stem)
def test_a_pipeline_notebook_reads_sentence_cell_sentence(file: Path) -> None:
    cells = read(file).cells
    title, parameters, run = cells[:3]
    assert all(word in title.source for word in ("**Question.**", "**Reads**", "**Writes**"))
    assert tags(parameters) == ["parameters"]
    assert "run = Run.from_cell(globals())" in run.source and "run.resolved()" in run.source
    kinds = [cell.cell_type for cell in cells[2:]]
    assert all(a != b for a, b in zip(kinds, kinds[1:], strict=False)), "a cell stands without its sentence"
    lengths = sorted(len(c.source.splitlines()) for c in cells[2:] if c.cell_type == "code")
    assert lengths[len(lengths) // 2] <= 6
    assert any("assert " in c.source for c in cells if c.cell_type == "code"), "no expectation is stated"


@pytest.mark.parametrize("file", PIPELINE, ids=lambda f: f.stem)
def test_the_parameters_cell_is_run(file: Path) -> None:
    (cell,) = [c for c in read(file).cells if "parameters" in tags(c)]
    assert cell.source == execute.parameters_cell(), "run `python -m peftlab parameters`"
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body}
    assert values == {**{f.name: f.default for f in fields(Run)}, **dict.fromkeys(CONTROLS, False)}
    known = papermill.inspect_notebook(file)
    assert set(known) == set(values), "papermill does not recognise a line of the cell"


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("def f():\n    pass", "FunctionDef"), ("class A:\n    pass", "ClassDef"), ("try:\n    a\nexcept E:\n    b", "Try"), ("!ls", "a shell command or a magic"),
        ("%matplotlib inline", "a shell command or a magic"), ("import sys\nsys.path.append('x')", "sys.path"), ("while a:\n    b", "While"),
    ],
)  # fmt: skip
def test_the_check_of_cells_can_fail(source: str, fault: str) -> None:
    assert list(faults(source)) == [fault]


# ---------------------------------------------------------------- executed

TINY = {"method": "lora", "model": "tiny-mlp", "precision": "fp32", "steps": 3, "train_size": 32, "test_size": 16, "probe_size": 6}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is neither the project nor holds it, for the notebooks' outputs and their work."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture
def environment(elsewhere: Path, prepare_tiny: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment in which the notebooks of this module follow each other; the probed scenes are few, to save a minute."""
    monkeypatch.setenv("PEFTLAB_WORK", str(elsewhere / "work"))
    monkeypatch.setenv("PEFTLAB_CACHE", str(elsewhere / "cache"))
    if not (elsewhere / "work").exists():
        prepare_tiny(records.PROBED)
    return dict(os.environ)


def results(file: Path) -> dict[str, str]:
    """The digests of what a notebook computed, its log of seconds apart."""
    stage = {notebook: stage for stage, notebook in tasks.NOTEBOOKS.items()}[file.stem]
    if stage == "prepare":
        return records.digests("icons_choice")
    return {name: digest for name, digest in records.sealed(records.stage_folder(Run(**TINY), stage))["files"].items() if name != "steps.parquet"}


@pytest.mark.parametrize("file", PIPELINE, ids=lambda f: f.stem)  # in their order: each reads what the one before wrote
def test_plain_papermill_runs_it_from_another_folder(file: Path, elsewhere: Path, environment: dict[str, str]) -> None:
    given = [word for name, value in TINY.items() for word in ("-p", name, str(value))]
    command = [sys.executable, "-m", "papermill", str(file), file.name, "--no-progress-bar", *given]
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "unknown parameter" not in done.stderr and "Unable to parse" not in done.stderr
    assert results(file)
    assert not [p for p in (elsewhere / "work").rglob(".*")], "a temporary name is left"


@pytest.mark.skipif(sys.platform != "linux", reason="kernels are warm on Linux only")
@pytest.mark.parametrize("file", PIPELINE, ids=lambda f: f.stem)
def test_a_warm_kernel_gives_the_same_and_the_run_cell_can_be_run_again(file: Path, environment: dict[str, str]) -> None:
    """People run cells again in Jupyter: none may leave a scalar behind that `Run.from_cell` takes for a misspelt axis."""
    cold = results(file)
    notebook = papermill.parameterize.parameterize_notebook(papermill.iorw.load_notebook_node(str(file)), {**TINY, "again": file != PIPELINE[0]})
    (run,) = [cell for cell in notebook.cells if "run = Run.from_cell(globals())" in cell.source]
    last = nbformat.v4.new_code_cell("run = Run.from_cell(globals())")
    notebook.cells.append(last)
    NotebookClient(notebook, kernel_manager_class=kernels.manager_class(), iopub_timeout=60).execute()
    assert last.execution_count == sum(cell.cell_type == "code" for cell in notebook.cells)
    assert results(file) == cold


@pytest.mark.skipif(sys.platform != "linux", reason="kernels are warm on Linux only")
@pytest.mark.parametrize("file", PIPELINE[2:], ids=lambda f: f.stem)
def test_a_scorer_that_fails_loses_no_answer(file: Path, environment: dict[str, str]) -> None:
    others = {**TINY, "test_size": 12, "probe_size": 12}
    stage = {notebook: stage for stage, notebook in tasks.NOTEBOOKS.items()}[file.stem]
    folder = records.stage_folder(Run(**others), stage)
    assert not folder.exists()
    notebook = papermill.parameterize.parameterize_notebook(papermill.iorw.load_notebook_node(str(file)), others)
    (run,) = [cell for cell in notebook.cells if "run = Run.from_cell(globals())" in cell.source]
    run.source += "\nmetrics.judge = None"
    with pytest.raises(CellExecutionError, match="'NoneType' object is not callable"):
        NotebookClient(notebook, kernel_manager_class=kernels.manager_class(), iopub_timeout=60).execute()
    assert records.sealed(folder)["stamp"]["seconds"] > 0
    assert len(pd.read_parquet(folder / "predictions.parquet")) == 12


@pytest.mark.parametrize(("given", "said"), [({"rnak": 8}, "'rnak' is not an axis; the axes are model, dataset"), ({"method": "lroa"}, "choose one of none, connector")])
def test_a_misspelt_parameter_stops_the_notebook(given: dict[str, object], said: str, tmp_path: Path, work: Path) -> None:
    with pytest.raises(papermill.PapermillExecutionError, match=said):
        papermill.execute_notebook(PIPELINE[1], tmp_path / "out.ipynb", given, progress_bar=False, kernel_manager_class=kernels.manager_class())
    assert not list(work.iterdir())
