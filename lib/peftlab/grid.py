"""A study declared as YAML: axes and levels, expanded to the runs they stand for."""

import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from peftlab import datasets, paths
from peftlab.run import Run

STAGES = ("finetune", "evaluate", "probe")
KEYS = ("study", "why", "stages", "expect", "base", "grids", "exclude", "sources")


@dataclass(frozen=True)
class Study:
    """What a grid file declares: its name, its question, the stages asked of each run, the runs, and the tested sets that the mean of what is kept (A_S)
    is over; none: those that the base has seen."""

    name: str
    why: str
    stages: tuple[str, ...]
    runs: tuple[Run, ...]
    sources: tuple[str, ...] = ()


def read(name_or_path: str | Path) -> Study:
    """The study of a file in notebooks/grids (by its name) or of any YAML file (by its path).

    Raises ValueError, one sentence that starts with the file's name, for whatever does not hold: a key given twice, an unknown
    key, axis or level (with the choices), an exclusion without `why` or that excludes nothing, a size that is not `expect`.
    """
    file = _file(name_or_path)
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
        return _study(content)
    except yaml.YAMLError as error:
        raise ValueError(f"{file.name} is not readable YAML: {' '.join(str(error).split())}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file.name} is not UTF-8 text: {error}") from error
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}") from error


def _file(name_or_path: str | Path) -> Path:
    given = Path(name_or_path)
    named = paths.grids() / f"{name_or_path}.yaml"
    for file in (given, named) if given.suffix else (named, given):
        if file.is_file():
            return file
    choices = ", ".join(sorted(p.stem for p in paths.grids().glob("*.yaml"))) or "none yet"
    raise ValueError(f"there is no grid {str(name_or_path)!r}; choose one of {choices} (notebooks/grids), or give the path of a YAML file")


def _study(content: Any) -> Study:
    _require(isinstance(content, dict), f"a grid is a mapping with the keys {', '.join(KEYS)}")
    for key in content:
        _require(key in KEYS, f"{key!r} is not a key of a grid; the keys are {', '.join(KEYS)}")
    for key in ("study", "why", "stages", "expect", "grids"):
        _require(key in content, f"{key!r} is missing")
    name, why, stages, expect = (content[key] for key in ("study", "why", "stages", "expect"))
    _require(isinstance(name, str) and bool(re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name)), f"study is {name!r}; small letters, digits, - and _ (it names a folder)")
    _require(_sentence(why), f"why is {why!r}; one sentence that says what the study is for")
    _require(isinstance(stages, list) and stages, f"stages is {stages!r}; a list of {', '.join(STAGES)}")
    for stage in stages:
        _require(stage in STAGES, f"stage is {stage!r}; choose from {', '.join(STAGES)}")
    _require(isinstance(expect, int) and not isinstance(expect, bool), f"expect is {expect!r}; the number of runs, a whole number")
    combinations = list(_combinations(content.get("base") or {}, content["grids"]))
    kept = _excluded(combinations, content.get("exclude") or [])
    runs = tuple(dict.fromkeys(_run(c) for c in kept))  # a union: what two grids share is there once
    _require(len(runs) == expect, f"the grid has {len(runs)} runs, but expect says {expect}")
    return Study(name, " ".join(why.split()), tuple(s for s in STAGES if s in stages), runs, _sources(content, stages, runs))


def _sources(content: dict[str, Any], stages: list[str], runs: tuple[Run, ...]) -> tuple[str, ...]:
    """The data sets named as sources: each must be tested."""
    if "sources" not in content:
        return ()
    given, tested = content["sources"], {run.tested_on: None for run in runs} if "evaluate" in stages else {}
    _require(isinstance(given, list) and given, f"sources is {given!r}; a list of the data sets that the mean of what is kept (A_S) is over, or no such key")
    for name in given:
        _require(name in datasets.names(), f"sources names {name!r}, which is no data set; choose from {', '.join(tested) or 'those that are tested: none is'}")
        _require(name in tested, f"sources names {name}, on which no run of this grid is tested; tested are {', '.join(tested) or 'none: there is no evaluate stage'}")
        _require(given.count(name) == 1, f"sources names {name} twice")
    return tuple(given)


def _combinations(base: Any, grids: Any) -> Iterator[dict[str, Any]]:
    """Every combination as given, axes at their default left out, before exclusions."""
    _require(isinstance(base, dict), f"base is {base!r}; a mapping of axes to one level each")
    for axis, level in base.items():
        _require_level(axis, level)
    _require(isinstance(grids, list) and grids, f"grids is {grids!r}; a list of mappings of axes to lists of levels")
    for number, grid in enumerate(grids, 1):
        _require(isinstance(grid, dict), f"grid {number} is {grid!r}; a mapping of axes to lists of levels")
        columns = []
        for axis, levels in grid.items():
            _require(axis not in base, f"axis {axis} is in base and in grid {number}: keep one")
            levels = levels if isinstance(levels, list) else [levels]
            _require(bool(levels), f"axis {axis} has no level in grid {number}")
            for level in levels:
                _require_level(axis, level)
                _require(levels.count(level) == 1, f"axis {axis} has level {level!r} twice in grid {number}")
            columns.append([(axis, level) for level in levels])
        for combination in product(*columns):
            yield {**base, **dict(combination)}


def _excluded(combinations: list[dict[str, Any]], exclude: Any) -> list[dict[str, Any]]:
    """The combinations that no exclusion matches; each exclusion must say why and match at least one."""
    _require(isinstance(exclude, list), f"exclude is {exclude!r}; a list of mappings of axes to levels, each with a why")
    gone: set[int] = set()
    for number, entry in enumerate(exclude, 1):
        _require(isinstance(entry, dict), f"exclusion {number} is {entry!r}; a mapping of axes to levels, with a why")
        _require(_sentence(entry.get("why")), f"exclusion {number} has no why: say in a sentence what makes it meaningless")
        wanted = {axis: levels if isinstance(levels, list) else [levels] for axis, levels in entry.items() if axis != "why"}
        _require(bool(wanted), f"exclusion {number} names no axis")
        for axis, levels in wanted.items():
            for level in levels:
                _require_level(axis, level)
                here = {str(_value(c, axis)): None for c in combinations}
                _require(any(_value(c, axis) == level for c in combinations), f"exclusion {number}: {axis} is {level!r}; this grid has {', '.join(here)}")
        matched = {i for i, c in enumerate(combinations) if all(_value(c, axis) in levels for axis, levels in wanted.items())}
        _require(bool(matched), f"exclusion {number} excludes nothing: remove it")
        gone |= matched
    return [c for i, c in enumerate(combinations) if i not in gone]


DEFAULTS = {f.name: f.default for f in fields(Run)}


def _value(combination: dict[str, Any], axis: str) -> Any:
    return combination.get(axis, DEFAULTS[axis])


def _run(combination: dict[str, Any]) -> Run:
    try:
        return Run.from_dict(combination)
    except ValueError as error:
        shown = ", ".join(f"{k}: {v}" for k, v in combination.items())
        raise ValueError(f"{error} (in the combination {shown})") from error


def level(axis: str, text: str) -> Any:
    """The level that `text` gives an axis, read as in a grid's file; raises ValueError in a sentence."""
    try:
        found = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"axis {axis} is {text!r}, which is not readable YAML: {' '.join(str(error).split())}") from error
    _require_level(axis, found)
    return found


def _require_level(axis: Any, level: Any) -> None:
    _require(axis in DEFAULTS, f"{axis!r} is not an axis; the axes are {', '.join(DEFAULTS)} (lib/peftlab/run.py)")
    _require(level is None or isinstance(level, (str, int, float, bool)), f"axis {axis} has level {level!r}; a level is a number, a word or null")


def _sentence(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise ValueError(sentence)


class _Loader(yaml.SafeLoader):
    """The safe loader, which refuses a key given twice and reads 1e-3 as a number, as YAML 1.2 does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping without repeated keys."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            _require(isinstance(key, Hashable), f"the key {key!r} is not a word (line {line})")
            _require(key not in seen, f"the key {key!r} is given twice (line {line})")
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789"))
