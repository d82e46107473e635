"""An LLM's opinion of stored answers, from any endpoint that speaks OpenAI's chat protocol: optional, recorded by the judge's id, in no table of the report."""

import json
import os
import re
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from peftlab import paths, records
from peftlab.run import Run

KEY = "PEFTLAB_JUDGE_KEY"  # the environment's name of the key; it is sent to the endpoint and written nowhere
PLACES = ("question", "reference", "answer", "objects")  # what a prompt may ask for, in braces
HALLUCINATED = 3  # MMHal-Bench: a rating below is a hallucination (Sun et al. 2023, https://arxiv.org/abs/2309.14525)
SECONDS = 120
WORST, BEST = 0, 6


@dataclass(frozen=True)
class Judge:
    """Who is asked, and how: the endpoint's address up to ``/v1``, the model's name there, and the prompt, of `PLACES` in braces."""

    url: str
    model: str
    prompt: str

    def __post_init__(self) -> None:
        if not re.match(r"https?://", self.url):
            raise ValueError(f"the judge's address is {self.url!r}; it begins with http:// or https:// and ends with /v1")
        lacks = [name for name in ("question", "answer") if "{" + name + "}" not in self.prompt]
        if lacks:
            raise ValueError(f"the judge's prompt has no place for {' and '.join(lacks)}: {', '.join('{' + name + '}' for name in PLACES)} are filled in")


class _Stay(urllib.request.HTTPRedirectHandler):
    """No redirection: the key would go along to wherever it leads."""

    def redirect_request(self, *args: Any, **named: Any) -> None:
        return None


def ask(judge: Judge, texts: Mapping[str, str]) -> dict[str, Any]:
    """The judge's reply on one answer: ``said``, ``rating`` (0 to 6, None where none can be read) and ``judge``, the id the endpoint gives itself.

    `texts` fill the prompt's places once; they are never looked at again. Raises ValueError in a sentence where no reply is to be had.
    """
    content = re.sub(r"\{(" + "|".join(PLACES) + r")\}", lambda place: texts[place[1]], judge.prompt)
    body = {"model": judge.model, "temperature": 0, "messages": [{"role": "user", "content": content}]}
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {os.environ[KEY]}"} if os.environ.get(KEY) else {})
    request = urllib.request.Request(f"{judge.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.build_opener(_Stay).open(request, timeout=SECONDS) as reply:
            found = json.load(reply)
        said = found["choices"][0]["message"]["content"]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"the judge {judge.model} at {judge.url} gave no reply ({type(error).__name__}: {error})") from error
    return {"said": str(said), "rating": rating(str(said)), "judge": str(found.get("model") or judge.model)}


def rating(said: str) -> int | None:
    """The one number after "rating" in a reply; None where there is none, more than one that differ, or it is not from 0 to 6."""
    named = {int(n) for n in re.findall(r"rating\W{0,5}(\d+)", said, re.IGNORECASE)}
    value = named.pop() if len(named) == 1 else None
    return value if value is not None and WORST <= value <= BEST else None


def judge_run(run: Run, judge: Judge) -> Path:
    """Ask about every stored answer of an evaluation and write the opinions beside it, with who gave them; returns the file.

    Raises FileNotFoundError where the evaluation is not there; nothing is written unless every answer was judged.
    """
    folder = records.stage_folder(run, "evaluate")
    if records.sealed(folder) is None:
        raise FileNotFoundError(f"{run.id} is not evaluated on {run.test_id}: run 03_evaluate first")
    answers = pd.read_parquet(folder / "predictions.parquet")
    things = {e.example_id: ", ".join(e.objects) for e in records.read_examples(run.tested_on, "test")}
    rows = []
    for row in answers.itertuples():
        texts = {"question": row.question, "reference": row.answers[0], "answer": row.response, "objects": things.get(row.example_id, "")}
        rows.append({"example_id": row.example_id, "type": row.template, **ask(judge, texts)})
    who = sorted({row["judge"] for row in rows})
    file = paths.runs() / run.id / "judge" / run.test_id / f"{re.sub(r'[^a-zA-Z0-9.-]+', '-', '+'.join(who))}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.with_suffix(".part").write_text(json.dumps({**asdict(judge), "judges": who, **summary(rows), "opinions": rows}, indent=1), encoding="utf-8")
    return file.with_suffix(".part").replace(file)


def official_rating(said: str) -> int:
    """The rating that MMHal-Bench's own script reads: of "rating: 0" to "rating: 6" the only one that the reply holds, in any case, else 0.

    github.com/llava-rlhf/LLaVA-RLHF, MMHal-Bench-eval/eval_gpt4.py at 6a0df2d3ec29cc7ea3340b17372a509b2cf34ef5; "Rating: 10" is 1 to it.
    """
    found = [value for value in range(WORST, BEST + 1) if f"rating: {value}" in said.lower()]
    return found[0] if len(found) == 1 else 0


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Two readings of the opinions on n answers, in `rows` of ``said``, ``rating`` and ``type`` (of the question).

    ``rating`` (mean) and ``hallucinated`` (per cent) are of the ratings that can be read, ``unparsed`` is how many cannot. ``official`` holds
    both as MMHal-Bench counts them, an unreadable one as 0 and hallucinated, and under ``types`` again, with n, for each type of question.
    """
    rated = [row["rating"] for row in rows if row["rating"] is not None]
    types = {kind: [row for row in rows if row["type"] == kind] for kind in dict.fromkeys(row["type"] for row in rows)}
    official = {**_official(rows), "types": {kind: {**_official(mine), "n": len(mine)} for kind, mine in types.items()}}
    return {**_mean(rated), "n": len(rows), "unparsed": len(rows) - len(rated), "official": official}


def _official(rows: list[dict[str, Any]]) -> dict[str, float | None]:
    return _mean([official_rating(row["said"]) for row in rows])


def _mean(ratings: list[int]) -> dict[str, float | None]:
    if not ratings:
        return {"rating": None, "hallucinated": None}
    return {"rating": sum(ratings) / len(ratings), "hallucinated": 100 * sum(r < HALLUCINATED for r in ratings) / len(ratings)}
