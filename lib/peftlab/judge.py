"""An LLM's opinion of stored answers, from any endpoint that speaks OpenAI's chat protocol: optional, recorded by the judge's id, in no table of the report."""

import hashlib
import http.client
import json
import os
import re
import time
import urllib.error
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
PAUSES = (1, 3, 9)  # seconds before an endpoint that is busy, broken or out of reach is asked again
WORST, BEST = 0, 6


@dataclass(frozen=True)
class Judge:
    """Who is asked, and how: the endpoint's address up to ``/v1``, the model's name there, and the prompt, of `PLACES` in braces."""

    url: str
    model: str
    prompt: str

    def __post_init__(self) -> None:
        if not re.match(r"https?://", self.url):
            raise ValueError(_keyless(f"the judge's address is {self.url!r}; it begins with http:// or https:// and ends with /v1"))
        lacks = [name for name in ("question", "answer") if "{" + name + "}" not in self.prompt]
        if lacks:
            raise ValueError(f"the judge's prompt has no place for {' and '.join(lacks)}: {', '.join('{' + name + '}' for name in PLACES)} are filled in")


class _Stay(urllib.request.HTTPRedirectHandler):
    """No redirection: the key would go along to wherever it leads."""

    def redirect_request(self, *args: Any, **named: Any) -> None:
        return None


def ask(judge: Judge, texts: Mapping[str, str]) -> dict[str, Any]:
    """The judge's reply on one answer: ``said``, ``rating`` (0 to 6, None where none can be read) and ``judge``, the id the endpoint gives itself.

    `texts` fill the prompt's places once; they are never looked at again. An endpoint that is busy, broken or out of reach is asked again
    after each of `PAUSES`. Raises ValueError in a sentence, which never holds the key, where no reply is to be had.
    """
    content = re.sub(r"\{(" + "|".join(PLACES) + r")\}", lambda place: texts[place[1]], judge.prompt)
    body = {"model": judge.model, "temperature": 0, "messages": [{"role": "user", "content": content}]}
    key = _key()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    pauses = iter(PAUSES)
    while True:
        try:
            request = urllib.request.Request(f"{judge.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers)
            with urllib.request.build_opener(_Stay).open(request, timeout=SECONDS) as reply:
                found = json.load(reply)
            said = found["choices"][0]["message"]["content"]
            if not isinstance(said, str):
                raise TypeError(f"the content is {type(said).__name__}, not text")
            return {"said": said, "rating": rating(said), "judge": str(found.get("model") or judge.model)}
        except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError, TypeError) as error:
            pause = next(pauses, None) if _passes(error) else None
            if pause is None:  # from None: the error itself may quote an endpoint that sends the key back
                raise ValueError(_keyless(f"the judge {judge.model} at {judge.url} gave no reply ({type(error).__name__}: {error})")) from None
        time.sleep(pause)


def _key() -> str:
    """The endpoint's key, "" where there is none; raises ValueError where no header can hold it."""
    key = os.environ.get(KEY, "").strip()
    if not key.isprintable() or any(ord(character) > 255 for character in key):
        raise ValueError(f"{KEY} in the environment holds a control character or one that is not Latin-1; a key is one line of plain characters: set it again")
    return key


def _keyless(sentence: str) -> str:
    """A sentence with the key, quoted or not, struck out."""
    key = os.environ.get(KEY, "").strip()
    return re.sub(r"\\*".join(map(re.escape, key)), "***", sentence) if key else sentence


def _passes(error: Exception) -> bool:
    """Whether the same question may be answered later: there were too many, or the endpoint or the way to it failed."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code == 429 or error.code >= 500
    if isinstance(error, urllib.error.URLError):
        return isinstance(error.reason, OSError)
    return isinstance(error, (OSError, http.client.HTTPException)) and not isinstance(error, http.client.InvalidURL)


def rating(said: str) -> int | None:
    """The one number after "rating" (and its scale in brackets) in a reply; None where there is none, more than one that differ, or it is no whole one from 0 to 6."""
    plain = re.sub(r"(rating)\W{0,5}?[(\[][^()\[\]]*\d\s*(?:-|–|to)\s*\d[^()\[\]]*[)\]]", r"\1", said, flags=re.IGNORECASE)
    named = {float(n.replace(",", ".")) for n in re.findall(r"rating\W{0,5}(\d+(?:[.,]\d+)?)(?!\d|[.,–-]\d| to \d)", plain, re.IGNORECASE)}
    value = named.pop() if len(named) == 1 else None
    return int(value) if value is not None and value.is_integer() and WORST <= value <= BEST else None


def judge_run(run: Run, judge: Judge) -> Path:
    """Ask about every stored answer of an evaluation and write the opinions beside it, with who gave them; returns the file.

    The file is written whole, once every answer was judged. Until then each opinion is kept as it comes, a line of a JSONL in the same folder: a call
    that ends early leaves it, and the next by the same judge (address, model and prompt) asks only about what it holds no opinion of. An answer
    that was made again since is asked about again. Raises FileNotFoundError where the evaluation is not there.
    """
    folder = records.stage_folder(run, "evaluate")
    if records.sealed(folder) is None:
        raise FileNotFoundError(f"{run.id} is not evaluated on {run.test_id}: run 03_evaluate first")
    answers = pd.read_parquet(folder / "predictions.parquet")
    things = {e.example_id: ", ".join(e.objects) for e in records.read_examples(run.tested_on, "test")}
    place = paths.runs() / run.id / "judge" / run.test_id
    part = place / f"{_digest(asdict(judge))}.jsonl"
    rows, there = [], _opinions(part)
    for row in answers.itertuples():
        texts = {"question": row.question, "reference": row.answers[0], "answer": row.response, "objects": things.get(row.example_id, "")}
        asked = _digest([asdict(judge), row.example_id, texts])
        if asked not in there:
            there[asked] = ask(judge, texts)
            place.mkdir(parents=True, exist_ok=True)
            with part.open("a", encoding="utf-8") as lines:  # the newline first: the line before may have been cut
                lines.write(("\n" if lines.tell() else "") + json.dumps({"asked": asked, "example_id": row.example_id, "opinion": there[asked]}))
        rows.append({"example_id": row.example_id, "type": row.template, **there[asked]})
    who = sorted({row["judge"] for row in rows})
    file = place / f"{re.sub(r'[^a-zA-Z0-9.-]+', '-', '+'.join(who))}.json"
    place.mkdir(parents=True, exist_ok=True)
    file.with_suffix(".part").write_text(json.dumps({**asdict(judge), "judges": who, **summary(rows), "opinions": rows}, indent=1), encoding="utf-8")
    file.with_suffix(".part").replace(file)
    part.unlink(missing_ok=True)
    return file


def _digest(asked: Any) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]


def _opinions(part: Path) -> dict[str, dict[str, Any]]:
    """The opinions of calls that ended early, by the digest of what was asked of whom; a line that was cut is left out."""
    found = {}
    for line in part.read_text(encoding="utf-8").splitlines() if part.exists() else ():
        try:
            row = json.loads(line)
            found[row["asked"]] = row["opinion"]
        except (ValueError, KeyError, TypeError):
            continue
    return found


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
