"""The README's tree equals the disk, its commands are commands, and its links lead somewhere.

The tree is the fenced block that follows the heading "What is where". A line is two spaces per level, then one or more names
separated by single spaces, then two or more spaces and what they are for. A folder ends in /; a name may hold * for many. The
folder of a line is the nearest one above it that is less indented. A folder with lines below it is listed whole: what git
tracks there is exactly what is named (hidden files may be left out). A folder without is only named. What git ignores may be named.
"""

import re
import shlex
import subprocess
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import pytest

from peftlab import __main__ as command_line
from peftlab import paths

HEADING = "## What is where"


def tracked(root: Path) -> list[str]:
    """Every path in git's index, with / between its parts."""
    listed = subprocess.run(["git", "-C", str(root), "ls-files", "-z"], check=True, capture_output=True, text=True).stdout
    return [name for name in listed.split("\0") if name]


def ignored(root: Path, name: str) -> bool:
    """Whether git ignores the path."""
    return subprocess.run(["git", "-C", str(root), "check-ignore", "--quiet", name]).returncode == 0


def tree(readme: str) -> list[tuple[int, list[str], str]]:
    """The lines of the tree: level, names, what for."""
    _, found, rest = readme.partition(f"{HEADING}\n")
    assert found, f"the README has no heading {HEADING!r}"
    block = re.search(r"```[a-z]*\n(.*?)```", rest, re.DOTALL)
    assert block, f"no fenced block follows {HEADING!r}"
    lines = []
    for line in block[1].splitlines():
        if line.strip():
            indent = len(line) - len(line.lstrip(" "))
            names, _, what = line.strip().partition("  ")
            assert indent % 2 == 0, f"an odd indent in {line!r}"
            lines.append((indent // 2, names.split(), what.strip()))
    return lines


def mistakes(readme: str, listed: list[str], *, is_ignored: object = lambda name: False) -> list[str]:
    """Where the tree and the tracked paths `listed` differ, a sentence each."""
    wrong: list[str] = []
    above: list[str] = [""]  # the folder at each level
    children: dict[str, list[str]] = {"": []}
    for level, names, what in tree(readme):
        if level >= len(above):
            wrong.append(f"{names[0]} is indented below something that is no folder")
            continue
        del above[level + 1 :]
        if not what:
            wrong.append(f"{' '.join(names)} has no word on what it is for")
        for name in names:
            path = str(PurePosixPath(above[level], name))
            children.setdefault(above[level], []).append(path)
            folder = name.endswith("/")
            there = any(fnmatch(p, f"{path}/*") for p in listed) if folder else any(fnmatch(p, path) and p.count("/") == path.count("/") for p in listed)
            if not there and not is_ignored(path + "/" * folder):
                wrong.append(f"{path}{'/' * folder} is in the tree but is not tracked")
            if folder and len(names) == 1:
                above.append(path)
    for folder, named in children.items():
        depth = len(PurePosixPath(folder).parts)
        direct = {"/".join(p.split("/")[: depth + 1]) for p in listed if not folder or p.startswith(f"{folder}/")}
        for path in sorted(direct):
            if not PurePosixPath(path).name.startswith(".") and not any(fnmatch(path, n) or n.startswith(f"{path}/") for n in named):
                wrong.append(f"{path} is tracked but not in the tree")
    return wrong


def code(readme: str) -> list[str]:
    """Every line of every fenced block and every inline code, the tree's block left out."""
    before, _, after = readme.partition(HEADING)
    text = before + re.sub(r"```[a-z]*\n.*?```", "", after, count=1, flags=re.DOTALL)
    fenced = re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```[a-z]*\n.*?```", "", text, flags=re.DOTALL))
    return [line.partition("#")[0].strip() for block in fenced for line in block.splitlines()] + inline


def commands(readme: str, makefile: str) -> list[str]:
    """The `make` targets and `python -m peftlab` commands of the README that do not exist, a sentence each."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    wrong = []
    for line in code(readme):
        for words in re.findall(r"(?:^|&& )make((?: [A-Za-z0-9_=./-]+)+)", line):
            wrong += [f"make {word} is no target" for word in words.split() if "=" not in word and word not in targets]
        for rest in re.findall(r"python -m peftlab([^&|;]*)", line):
            try:
                command_line.parser().parse_args(shlex.split(rest))
            except SystemExit as end:
                wrong += [f"python -m peftlab{rest} does not parse"] if end.code else []
    return wrong


def links(readme: str, root: Path) -> list[str]:
    """Links and pictures of the README that lead to nothing in the repository."""
    targets = re.findall(r"\]\(([^)#\s]+)", readme) + re.findall(r"(?:src|href)=\"([^\"#]+)\"", readme)
    return [t for t in targets if not re.match(r"[a-z]+:", t) and not (root / t).exists()]


@pytest.fixture(scope="module")
def readme() -> str:
    """The README's text."""
    return (paths.root() / "README.md").read_text(encoding="utf-8")


def test_the_tree_equals_the_disk(readme: str) -> None:
    root = paths.root()
    assert mistakes(readme, tracked(root), is_ignored=lambda name: ignored(root, name)) == []


def test_the_commands_exist(readme: str) -> None:
    assert commands(readme, (paths.root() / "Makefile").read_text()) == []
    said = " ".join(code(readme))
    assert "make report" in said and "make test" in said


def test_the_links_lead_somewhere(readme: str) -> None:
    assert links(readme, paths.root()) == []


# ---------------------------------------------------------------- the checks can fail

SAMPLE = f"""
Run `make report` or `python -m peftlab run smoke`.

{HEADING}

```
README.md Makefile     what you read and run
lib/tool/              the library
  a.py                 one thing
  parts/               many things
    *.py               one each
data/                  what it reads
  cache/               made here
```
"""
LISTED = [".gitignore", "README.md", "Makefile", "lib/tool/a.py", "lib/tool/parts/x.py", "lib/tool/parts/y.py"]


def of_sample(readme: str = SAMPLE, listed: list[str] = LISTED) -> list[str]:
    """The mistakes of a made-up project whose data/ is ignored."""
    return mistakes(readme, listed, is_ignored=lambda name: name.startswith("data"))


def test_a_tree_that_is_right_has_no_mistake() -> None:
    assert of_sample() == []


def test_a_wrong_tree_is_told() -> None:
    assert of_sample(listed=[*LISTED, "lib/tool/b.py"]) == ["lib/tool/b.py is tracked but not in the tree"]
    assert of_sample(listed=[*LISTED, "lib/tool/parts/z.csv"]) == ["lib/tool/parts/z.csv is tracked but not in the tree"]
    assert of_sample(listed=[*LISTED, "NEWS"]) == ["NEWS is tracked but not in the tree"]
    assert of_sample(listed=LISTED[:3] + LISTED[4:]) == ["lib/tool/a.py is in the tree but is not tracked"]
    assert of_sample(listed=LISTED[:4]) == ["lib/tool/parts/ is in the tree but is not tracked", "lib/tool/parts/*.py is in the tree but is not tracked"]
    assert of_sample(SAMPLE.replace("  a.py                 one thing", "  a.py")) == ["a.py has no word on what it is for"]
    assert mistakes(SAMPLE, LISTED) == ["data/ is in the tree but is not tracked", "data/cache/ is in the tree but is not tracked"]


def test_wrong_commands_and_links_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    makefile = "report: x\n\techo\ntest:\n"
    assert commands(SAMPLE, makefile) == []
    assert commands("`make reprot STUDY=main`", makefile) == ["make reprot is no target"]
    assert commands("```\ncd x && make test all\n```", makefile) == ["make all is no target"]
    assert commands("`python -m peftlab rnu smoke`", makefile) == ["python -m peftlab rnu smoke does not parse"]
    assert commands("`python -m peftlab run`", makefile) == ["python -m peftlab run does not parse"]
    assert links("[a](b.md) ![c](d.png) [e](https://example.org) [f](#g)", tmp_path) == ["b.md", "d.png"]
    (tmp_path / "b.md").touch()
    assert links("[a](b.md#part)", tmp_path) == []
