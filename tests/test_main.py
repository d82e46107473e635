"""The command line: exit codes, sentences on stderr, and a help that imports nothing heavy."""

import subprocess
import sys
from pathlib import Path

import pytest

from peftlab import __main__ as command_line


def peftlab(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run([sys.executable, "-m", "peftlab", *arguments], capture_output=True, text=True)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys\nfrom peftlab import __main__\n__main__.parser().format_help()\nprint(sorted({'torch', 'pandas', 'numpy', 'yaml', 'papermill'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command_line.main(["--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert all(command in said for command in ("doctor", "assets", "run", "status", "parameters", "report", "rescore", "publish"))


@pytest.mark.parametrize("command", ["run", "status"])
def test_an_unknown_grid_is_one_sentence_and_2(command: str) -> None:
    done = peftlab(command, "smoek")
    assert done.returncode == 2
    assert done.stderr.startswith(f"peftlab {command}: there is no grid 'smoek'; choose one of ")
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


def test_status_counts_what_is_to_do(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["status", "smoke"]) == 0
    assert "to do" in capsys.readouterr().out
    assert list(work.iterdir()) == []


def test_exporting_a_run_that_is_not_there_is_a_sentence(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["export", "pocket-lora", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("peftlab export: there is no finished run 'pocket-lora' in ")
    assert not (tmp_path / "out").exists()


def test_a_wrong_grid_is_one_sentence_and_2_and_writes_nothing(work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text("{study: s, why: w, stages: [finetune], expect: 1, grids: [{method: lorra}]}")
    assert command_line.main(["run", str(file)]) == 2
    assert capsys.readouterr().err.startswith("peftlab run: wrong.yaml: method is 'lorra'; choose one of none, connector")
    assert list(work.iterdir()) == []


def test_the_traceback_is_there_on_request(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no grid"):
        command_line.main(["--traceback", "status", "smoek"])


def test_an_unknown_command_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command_line.main(["rnu"])
    assert end.value.code == 2
    assert "rnu" in capsys.readouterr().err


def test_doctor_names_what_is_missing_and_how_to_get_it(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "requirements.lock").write_text("# a comment\npytest==0.0.1\nnot-there==1.0\n")
    monkeypatch.setenv("PEFTLAB_ROOT", str(tmp_path))
    assert command_line.main(["doctor"]) == 1
    said = capsys.readouterr().out
    for sentence in ("0 of 2 as locked; pytest ", "not-there absent (locked: 1.0) -> make setup", "smollm2   not fetched and not converted -> make assets"):
        assert sentence in said
    assert "no delta in" in said and "check out data/pack again" in said and "not a git checkout" in said
    assert "5 missing" not in said and "4 missing" in said
    assert not cache.exists()


def test_doctor_says_that_a_damaged_asset_is_damaged(cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from peftlab import assets

    for folder in (assets._folder("smollm2"), assets._converted("smollm2", "1")):
        folder.mkdir(parents=True)
    assert command_line.main(["doctor"]) == 2
    assert "seal.json cannot be read" in capsys.readouterr().err


def test_rescore_says_what_changed(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["rescore", "smoke"]) == 0
    assert capsys.readouterr().out.startswith("0 of 204 scores and 0 answers changed; wrote ")
    assert command_line.main(["rescore", "smoke", "--metric", "letter"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert all("letter: – -> " in line for line in said[:-1]) and said[-1].startswith("60 of 264 scores and 0 answers changed")
    assert command_line.main(["rescore", "smoke", "--metric", "lettre"]) == 2
    assert capsys.readouterr().err.startswith("peftlab rescore: metric is 'lettre'; choose one of exact, equal")


def test_rescore_needs_no_torch(study: Path) -> None:
    code = "import sys\nfrom peftlab import __main__\n__main__.main(['rescore', 'smoke'])\nprint({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("set()\n"), done.stdout + done.stderr
