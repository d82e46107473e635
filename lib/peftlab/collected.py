"""Collected studies: the tidy tables of what ran, scored, and the facts found in them."""

import json
import math
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from peftlab import datasets, models, paths, provenance, records
from peftlab.run import Run


class Scorer(Protocol):
    """What turns stored answers into scores: the module `metrics`, given by who calls, since it is above this one."""

    RELATIVE: tuple[str, ...]

    def judge(self, predictions: pd.DataFrame, name: str, *, whole: pd.DataFrame | None = None) -> pd.DataFrame: ...

    def score(self, predictions: pd.DataFrame, name: str, *, whole: pd.DataFrame | None = None) -> dict[str, Any]: ...

    def shown(self, name: str, predictions: pd.DataFrame) -> tuple[str, ...]: ...


FINAL_STEPS = 10  # the final loss is the mean over the last steps: one batch says little
ORIGIN = ("commit", "dirty", "processor", "device")  # of the stamp, beside every row


def collect(study: str, runs: Sequence[Run], *, scorer: Scorer, stages: Sequence[str] = ("finetune", "evaluate")) -> Path:
    """Gather the finished stages of a study's runs into tidy tables in the folder returned, whole or not at all.

    predictions.parquet: a row per answer; scores.csv: a row per run, stage and metric; costs.csv: a row per tuned model;
    texts.csv: where it was measured, a row per passage of plain text; references.parquet: where a metric needs them, all questions of a test set, asked or not; provenance.json: what made them all.
    Every row carries every axis, resolved. `scorer` is the module `metrics`: it adds parsed, outcome, value and metric to each answer
    and says what is reported of them.
    Raises ValueError naming what is missing, stale or edited; nothing is written then.
    """
    answers, scores, costs, texts, whole = [], [], [], [], {}
    found = _finished(runs, stages)
    for (stage, folder), (run, content) in found.items():
        about = {"run": run.id, "stage": stage, **run.resolved()}
        if stage == "finetune":
            costs.append({**about, **_costs(folder, content)})
            continue
        dataset = run.tested_on if stage == "evaluate" else run.probe
        about |= {"tested_on": dataset, **{name: content.get("stamp", {}).get(name) for name in ORIGIN}}
        given = pd.read_parquet(folder / "predictions.parquet")
        if set(_names(scorer, stage, dataset, given)) & set(scorer.RELATIVE) and dataset not in whole:
            whole[dataset] = records.read_references(run.tested_on if stage == "evaluate" else records.probed(run))
        judged, rows = _assessed(scorer, given, _names(scorer, stage, dataset, given), whole.get(dataset))
        answers.append(judged.assign(**about))
        scores += [{**about, **row} for row in (*rows, *_perplexity(content.get("text") or []))]
        texts += [{**about, **passage} for passage in content.get("text") or []]
    tables = {"predictions.parquet": answers, "scores.csv": scores, "costs.csv": costs, "texts.csv": texts}
    tables["references.parquet"] = [rows.assign(tested_on=name) for name, rows in whole.items()]
    return _write_tables(study, tables, _origins(found.values()))


def _perplexity(text: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The score of fixed passages of plain text (passage, nats, tokens): e to the mean nats per token."""
    nats, tokens = (sum(passage[name] for passage in text) for name in ("nats", "tokens"))
    return [{"metric": MEASURED[0], "value": math.exp(nats / tokens), "n": tokens, "unparsed": 0}] if text else []


def _names(scorer: Scorer, stage: str, tested_on: str, answers: pd.DataFrame) -> tuple[str, ...]:
    """The metrics of a stage's answers; the first judges them."""
    return scorer.shown(datasets.card(tested_on).metric if stage == "evaluate" else tested_on, answers)


def _assessed(scorer: Scorer, answers: pd.DataFrame, names: Sequence[str], whole: pd.DataFrame | None) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Answers judged by the first metric, and a row of scores for each."""
    judged = scorer.judge(answers, names[0], whole=whole)
    return judged, [{"metric": name, **scorer.score(judged, name, whole=whole)} for name in names]


@dataclass(frozen=True)
class Rescored:
    """What scoring stored answers again changed: the folder written, how many outcomes or values of answers, and the scores that differ.

    ``changes`` has a row per score: run, stage, tested_on, test_pictures, metric, before and after (None: not there).
    ``refused`` says by data set why a metric asked for could not be applied.
    """

    folder: Path
    answers: int
    scores: int
    changes: pd.DataFrame
    refused: dict[str, str]


CELL = ["run", "stage", "tested_on", "test_pictures", "test_size", "probe_size"]  # what tells one stage's answers from another's


def rescore(study: str, *, scorer: Scorer, metric: str | None = None) -> Rescored:
    """Score a study's stored answers with the scorer as it is now, whole or not at all; no model and no data set is needed.

    Answers collected here are scored, else the published ones; the result lies where `collect` writes. With `metric`, its scores are added
    (or renewed) beside the others and no answer is judged anew. Measurements that no answer holds stay as they were.
    Raises FileNotFoundError where the study is not collected, ValueError where `metric` can be applied to none of its answers.
    """
    results = read_results(study)
    answers, rows, refused = [], [], {}
    about = [c for c in results.scores if c not in ("metric", "value", "n", "unparsed")]
    for _, cell in results.predictions.groupby(CELL, sort=False, dropna=False):
        stage, tested_on = cell["stage"].iloc[0], cell["tested_on"].iloc[0]
        whole = results.references[results.references["tested_on"] == tested_on] if len(results.references) else None
        whole = whole if whole is not None and len(whole) else None
        given = cell.drop(columns=[c for c in JUDGED if c in cell])
        names = (metric,) if metric else _names(scorer, stage, tested_on, given)
        try:
            judged, made = _assessed(scorer, given, names, whole)
        except ValueError as error:
            if metric is None:
                raise
            refused[tested_on] = str(error)
            continue
        answers.append(judged)
        rows += [{**cell.iloc[0][about].to_dict(), **row} for row in made]
    if not rows:
        raise ValueError(f"{metric} can be applied to no answer of {study!r}: {'; '.join(f'{name}: {why}' for name, why in refused.items())}")
    new, old = pd.DataFrame(rows), results.scores
    stays = old["metric"] != metric if metric else old["metric"].isin(MEASURED)
    scores = pd.concat([part for part in (old[stays] if metric else new, new if metric else old[stays]) if len(part)], ignore_index=True)
    predictions = results.predictions if metric else pd.concat(answers).loc[results.predictions.index, results.predictions.columns]
    moved = (predictions[["outcome", "value"]] != results.predictions[["outcome", "value"]]).any(axis=1)
    tables = {"predictions.parquet": [predictions], "scores.csv": scores.to_dict("records")}
    origins = {**results.provenance, "scored": {"commit": provenance.commit(), "dirty": provenance.dirty()}}
    others = [f for f in results.folder.iterdir() if f.is_file() and f.name not in (*tables, "provenance.json")]
    changes = _changes(old, scores)
    return Rescored(_write_tables(study, tables, origins, others=others), int(moved.sum()), len(scores), changes, refused)


JUDGED = ("parsed", "outcome", "value", "metric")
MEASURED = ("text_perplexity",)  # scores that were measured with the model, not computed from its answers


def _changes(old: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """The scores that are not the same to nine digits, before and after."""
    key = [c for c in (*CELL, "metric") if c in old]
    columns = [*key, "value", "n", "unparsed"]
    sizes = [c for c in ("test_size", "probe_size") if c in key]
    old, new = (frame.astype(dict.fromkeys(sizes, float)) for frame in (old, new))
    both = old[columns].merge(new[columns], on=key, how="outer", suffixes=("_before", "_after"), validate="one_to_one")
    same = pd.Series(True, index=both.index)
    for name in ("value", "n", "unparsed"):
        before, after = (pd.to_numeric(both[f"{name}_{when}"]) for when in ("before", "after"))
        same &= np.isclose(before, after, rtol=1e-9, atol=1e-9, equal_nan=True)
    return both[~same].rename(columns={"value_before": "before", "value_after": "after"})[[c for c in key if c != "test_size"] + ["before", "after"]].reset_index(drop=True)


def _finished(runs: Sequence[Run], stages: Sequence[str]) -> dict[tuple[str, Path], tuple[Run, dict[str, Any]]]:
    """Each stage folder of the runs once, with its record; ValueError where any is missing or stale."""
    missing, stale, found = [], [], {}
    bases = {name: models.digest(name) for name in {r.model for r in runs}}
    for run in runs:
        for stage in stages:
            folder = records.stage_folder(run, stage)
            if (stage, folder) in found or (stage == "finetune" and run.method == "none"):
                continue
            content = records.sealed(folder)
            name = str(folder.relative_to(paths.runs()))
            if content is None:
                missing.append(name)
            elif differences := records.differences(content, records.expectation(run, stage, records.inputs(run, stage, base=bases[run.model]))):
                stale.append(f"{name} ({'; '.join(differences)})")
            else:
                found[stage, folder] = (run, content)
    for kind, names in (("missing", missing), ("stale", stale)):
        if names:
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            raise ValueError(f"the study is not complete: {len(names)} of {len(missing) + len(stale) + len(found)} stages are {kind}: {', '.join(names[:5])}{more}")
    if not found:
        raise ValueError("the study has no runs to collect")
    return found


def _costs(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    """What tuning a model cost: the facts of its stamp, its steps, final loss in nats and the bytes of its adapter on disk."""
    stamp = content.get("stamp", {})
    facts = {name: value for name, value in stamp.items() if value is None or isinstance(value, (str, int, float))}
    towers = {f"{kind}_{tower}": count for kind in ("trainable", "total") for tower, count in stamp.get(kind, {}).items()}
    steps = pd.read_parquet(folder / "steps.parquet")
    facts |= {"final_loss": float(steps["loss"].tail(FINAL_STEPS).mean()), "adapter_bytes": (folder / "adapter.safetensors").stat().st_size}
    return {**facts, **towers, "protocol": content["protocol"], **{f"digest_{k}": v for k, v in content["inputs"].items()}}


def _origins(found: Iterable[tuple[Run, dict[str, Any]]]) -> dict[str, Any]:
    """What made a study: commits, machine, packages (every value that occurs), digests of data and base, stages and their seconds."""
    found = list(found)
    stamps = [content.get("stamp", {}) for _, content in found]
    packages = {name for stamp in stamps for name in stamp.get("packages") or {}}
    data = {(r.tested_on if c["stage"] == "evaluate" else r.dataset if c["stage"] == "finetune" else r.probe, c["stage"]): c["inputs"]["data"] for r, c in found}
    return {
        "protocol": sorted({content["protocol"] for _, content in found}),
        **{plural: _values(stamp.get(name) for stamp in stamps) for plural, name in PLURALS.items()},
        "packages": {name: _values((stamp.get("packages") or {}).get(name) for stamp in stamps) for name in sorted(packages)},
        "bases": {run.model: content["inputs"]["base"] for run, content in found},
        "data": [{"dataset": dataset, "stage": stage, "digest": digest} for (dataset, stage), digest in sorted(data.items())],
        "stages": len(found),
        "seconds": float(sum(stamp.get("seconds") or 0 for stamp in stamps)),
        "started": min((s["started"] for s in stamps if s.get("started")), default=None),
    }


PLURALS = {"commits": "commit", "dirty": "dirty", "python": "python", "systems": "system", "processors": "processor", "cores": "cores", "devices": "device"}


def _values(values: Iterable[Any]) -> list[Any]:
    """The different values, in a fixed order; a value that is missing stays, as None."""
    return sorted(set(values), key=str)


def _write_tables(study: str, tables: dict[str, list[Any]], origins: dict[str, Any], *, others: Iterable[Path] = ()) -> Path:
    """Write a study's tables, and copies of `others`, under a temporary name and put them in the place of what was there."""
    folder = paths.results() / study
    temporary = folder.with_name(f".{study}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, rows in tables.items():
        if rows and name.endswith(".parquet"):
            pd.concat(rows, ignore_index=True).to_parquet(temporary / name, compression="zstd", index=False)
        elif rows:
            pd.DataFrame(rows).to_csv(temporary / name, index=False)
    for file in others:
        shutil.copyfile(file, temporary / file.name)
    (temporary / "provenance.json").write_text(json.dumps({**origins, "study": study}, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    return folder


@dataclass(frozen=True)
class Results:
    """A collected study as `collect` wrote it: its tables, and what made them."""

    study: str
    folder: Path
    predictions: pd.DataFrame
    scores: pd.DataFrame
    costs: pd.DataFrame
    references: pd.DataFrame
    texts: pd.DataFrame
    provenance: dict[str, Any]


def read_base(model: str) -> dict[str, Any] | None:
    """How a pocket base was made (its tracked delta.json); None for a model that has no delta."""
    file = paths.bases() / model / "delta.json"
    return json.loads(file.read_text()) if file.exists() else None


def read_results(study: str) -> Results:
    """The tables of a study: those collected here, else the published ones; raises FileNotFoundError saying how to make them."""
    for folder in (paths.results() / study, paths.published_results() / study):
        if (folder / "provenance.json").exists():
            words = {f.name: str for f in fields(Run) if f.type is str}  # else a column of "true" is read as a truth value
            scores, costs, texts = (
                pd.read_csv(f, keep_default_na=False, na_values=[""], dtype=words) if (f := folder / name).exists() else pd.DataFrame() for name in ("scores.csv", "costs.csv", "texts.csv")
            )
            origins = json.loads((folder / "provenance.json").read_text())
            references = pd.read_parquet(file) if (file := folder / "references.parquet").exists() else pd.DataFrame()
            return Results(study, folder, pd.read_parquet(folder / "predictions.parquet"), scores, costs, references, texts, origins)
    raise FileNotFoundError(f"study {study!r} is not collected: run `python -m peftlab run {study}` and then `python -m peftlab report {study}`")


# ---------------------------------------------------------------- facts


def write_facts(name: str, study: str, facts: dict[str, Any]) -> Path:
    """Write what an aggregate notebook found to facts/<name>.json: numbers, words and tables (frames become lists of rows).

    Missing values become null. Raises ValueError on a number that is not finite.
    """
    folder = paths.build() / "facts"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.json"
    plain = {key: _rows(value) if isinstance(value, pd.DataFrame) else value for key, value in facts.items()}
    text = json.dumps({"study": study, **plain}, indent=1, allow_nan=False, default=lambda value: value.item())
    file.with_suffix(".part").write_text(text + "\n", encoding="utf-8")
    file.with_suffix(".part").replace(file)
    return file


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{k: None if pd.api.types.is_scalar(v) and pd.isna(v) else v for k, v in row.items()} for row in frame.to_dict("records")]


def read_facts(study: str) -> dict[str, dict[str, Any]]:
    """The facts of `study` by the name they were written under; raises ValueError where one is of another study."""
    facts = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted((paths.build() / "facts").glob("*.json"))}
    if not facts:
        raise FileNotFoundError(f"there are no facts of {study!r}: run `python -m peftlab report {study}`")
    for name, content in facts.items():
        if content["study"] != study:
            raise ValueError(f"{name} holds facts of study {content['study']!r}, not {study!r}: run `python -m peftlab report {study}`")
    return facts
