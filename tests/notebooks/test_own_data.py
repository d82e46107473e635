"""A user's folder of pictures and a CSV, with no code written: prepared, tuned on, asked, collected, and in every form of the report.

It takes half a minute, for it is what a user does: three notebooks for each of two runs, and the report from them.
"""

import csv
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from peftlab import baselines, collected, execute, grid, metrics, paths, records, report, tables

CARD = '''label: "Shelves <b>$x_{$</b> & *co*"
task: what is on the shelf <img src=x onerror=alert(1)>
licence: CC0-1.0
table: questions.csv
pictures: pictures
'''
GRID = """study: mine
why: my own data in the report.
stages: [finetune, evaluate]
expect: 2
base: {dataset: shelves, model: tiny-mlp, precision: fp32, steps: 3, test_size: null}
grids:
  - method: [none, lora]
"""


def bring(markup: tuple[str, ...]) -> None:
    """Thirty pictures and a CSV of hostile questions in data/own, and a grid that names them."""
    folder = paths.own() / "shelves"
    (folder / "pictures").mkdir(parents=True)
    rng = np.random.default_rng(0)
    with (folder / "questions.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(("image", "question", "answer"))
        for number in range(30):
            Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype="uint8")).save(folder / "pictures" / f"{number}.png")
            writer.writerow((f"{number}.png", f"Which is it? {markup[number % 2]}", f"a {markup[(number + 1) % 2]}"))
    (paths.own() / "shelves.yaml").write_text(CARD, encoding="utf-8")
    (paths.own() / "mine.yml").write_text(GRID, encoding="utf-8")


@pytest.fixture
def brought(work: Path, cache: Path, markup: tuple[str, ...], prepare_tiny: Callable[..., None]) -> grid.Study:
    """The study of a user's data; the probed scenes are a few noisy pictures, to save a minute."""
    prepare_tiny(records.PROBED)
    bring(markup)
    return grid.read(paths.own() / "mine.yml")


def squeezed(text: str) -> str:
    """A text without blanks: lines break anywhere."""
    return re.sub(r"\s+", "", text)


def test_a_folder_of_pictures_and_a_csv_reach_the_report(brought: grid.Study) -> None:
    assert execute.run_grid(brought, live=False) == {"done": 4, "skipped": 0, "failed": 0, "blocked": 0, "stale": 0, "does not fit": 0}
    collected.collect("mine", brought.runs, scorer=metrics, stages=brought.stages, blind=baselines.BLIND)
    results = collected.read_results("mine")
    assert set(results.scores["tested_on"]) == {"shelves"} and set(results.scores.query("metric == 'exact'")["n"]) == {6}
    names: dict[str, object] = {}
    for cell in nbformat.read(paths.notebooks() / "10_main_results.ipynb", as_version=4).cells:
        if "parameters" in cell.metadata.get("tags", []):
            names["study"] = "mine"
        elif cell.cell_type == "code":
            exec(compile(cell.source, f"10_main_results:{cell.id}", "exec"), names)
    table = tables.main_table(names["scores"], names["averages"], names["baselines"], names["baseline_averages"])
    assert {"Most frequent answer", "Question only"} < {row[0] for row in table.rows}
    assert "Shelves &lt;b&gt;$x_{$&lt;/b&gt; &amp; *co*" in tables.as_html(table)
    made = report.build("mine")
    page = made.html.read_text(encoding="utf-8")
    assert "onerror=alert(1)&gt;" in page and "<b>$x_" not in page and "<img src=x" not in page
    assert "&lt;script&gt;alert" in page and "<script" not in page
    if shutil.which("pdftotext"):
        words = squeezed(subprocess.run(["pdftotext", "-raw", made.pdf, "-"], capture_output=True, text=True, check=True).stdout)
        assert "Shelves<b>$x_{$</b>&*co*" in words and '#eval("1")' in words


def test_data_with_a_problem_stop_before_anything_trains(brought: grid.Study) -> None:
    (paths.own() / "shelves" / "pictures" / "4.png").unlink()
    (paths.own() / "shelves" / "pictures" / "7.png").write_bytes(b"GIF89a")
    assert execute.run_grid(brought, live=False) == {"done": 0, "skipped": 0, "failed": 1, "blocked": 3, "stale": 0, "does not fit": 0}
    (failure,) = (paths.prepared()).glob("*.failure.json")
    said = failure.read_text(encoding="utf-8")
    assert "questions.csv row 5: there is no picture '4.png'" in said and "questions.csv row 8: the picture '7.png' does not decode" in said
    assert not paths.runs().exists() or not list(paths.runs().rglob("run.json"))
