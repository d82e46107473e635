"""The judge: what it is sent, what is read of its reply, what is kept; an endpoint on this machine stands for any."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from peftlab import __main__, collected, judge, paths, records
from peftlab.run import Run

PROMPT = "There are {objects}. Q: {question} Right: {reference} Said: {answer}"
RUN = Run(model="tiny-mlp", method="none", test_dataset="mmhal", test_size=None)


class Endpoint(ThreadingHTTPServer):
    """An endpoint that replies what it is told to, and keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.sent: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.reply: Any = {"model": "judge-2026/07", "choices": [{"message": {"content": "It invents a fork. Rating: 2"}}]}
        self.status = 200
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert self.path == "/v1/chat/completions"
        self.server.sent.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.keys.append(self.headers["Authorization"])
        body = json.dumps(self.server.reply).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        if self.server.status == 302:
            self.send_header("Location", f"{self.server.url}/elsewhere")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing: tests are quiet."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A running endpoint."""
    server = Endpoint()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def answered(work: Path, cache: Path) -> Path:
    """Two questions of MMHal-Bench, prepared and answered; the second answer holds a place of the prompt."""
    picture = Image.new("RGB", (8, 8))
    examples = [records.Example(f"m-{i}", f"m{i}", picture, f"What {i}?", ("A pizza.",), "attribute", 0, "food", (), ("Pizza", "Table")) for i in range(2)]
    records.write_examples("mmhal", {"test": examples})
    stage = records.open_stage(RUN, "evaluate", inputs=records.inputs(RUN, "evaluate"))
    records.predictions(examples, ("A pizza and a fork.", "{reference} Rating: 6")).to_parquet(stage.folder / "predictions.parquet")
    stage.finish(stamp={})
    (work / "prompt.txt").write_text(PROMPT)
    return work


def test_every_answer_is_judged_and_the_judge_is_kept_by_its_id(answered: Path, endpoint: Endpoint, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(judge.KEY, "secret-key")
    assert __main__.main(["judge", RUN.id, "mmhal", "--url", endpoint.url, "--model", "judge", "--prompt", str(answered / "prompt.txt")]) == 0
    assert [m["messages"][0]["content"] for m in endpoint.sent] == [
        "There are Pizza, Table. Q: What 0? Right: A pizza. Said: A pizza and a fork.", "There are Pizza, Table. Q: What 1? Right: A pizza. Said: {reference} Rating: 6"
    ]  # fmt: skip
    assert {m["temperature"] for m in endpoint.sent} == {0} and endpoint.keys == ["Bearer secret-key"] * 2
    (file,) = (paths.runs() / RUN.id / "judge" / "mmhal").iterdir()
    kept = json.loads(file.read_text())
    assert file.name == "judge-2026-07.json" and kept["judges"] == ["judge-2026/07"] and kept["prompt"] == PROMPT
    assert (kept["rating"], kept["hallucinated"], kept["n"], kept["unparsed"]) == (2, 100, 2, 0)
    assert kept["official"] == {"rating": 2, "hallucinated": 100, "types": {"attribute": {"rating": 2, "hallucinated": 100, "n": 2}}}
    assert "secret-key" not in file.read_text() + capsys.readouterr().out
    assert records.sealed(records.stage_folder(RUN, "evaluate")) is not None, "the evaluation is left as it was"


@pytest.mark.parametrize(
    ("said", "value"),
    [("Rating: 4", 4), ("**Rating:** 0, no information", 0), ("rating 3. My Rating: 3", 3), ("Rating: 3 or Rating: 4", None), ("Rating: 7", None), ("Four", None), ("", None), ("Rating: 10", None)],
)
def test_a_rating_is_read_or_it_is_none(said: str, value: int | None) -> None:
    assert judge.rating(said) == value


def test_what_holds_no_rating_is_counted_and_no_rating_at_all_is_no_number() -> None:
    rows = [{"said": f"Rating: {r}", "rating": r, "type": "attribute" if r else "other"} for r in (0, 3, 6)] + [{"said": "Rating: 3 or Rating: 4", "rating": None, "type": "other"}]
    types = {"other": {"rating": 0, "hallucinated": 100, "n": 2}, "attribute": {"rating": 4.5, "hallucinated": 0, "n": 2}}
    assert judge.summary(rows) == {"rating": 3, "hallucinated": 100 / 3, "n": 4, "unparsed": 1, "official": {"rating": 9 / 4, "hallucinated": 50, "types": types}}
    nothing = {"rating": 0, "hallucinated": 100}
    assert judge.summary([{"said": "", "rating": None, "type": "t"}]) == {"rating": None, "hallucinated": None, "n": 1, "unparsed": 1, "official": {**nothing, "types": {"t": {**nothing, "n": 1}}}}


@pytest.mark.parametrize(
    ("said", "value"),
    [("Rating: 4", 4), ("rating: 0", 0), ("Rating: 3 ... rating: 3", 3), ("Rating: 3 or Rating: 4", 0), ("Rating:4", 0), ("**Rating:** 4", 0), ("Four", 0), ("", 0), ("Rating: 7", 0), ("RATING: 10", 1)],
)
def test_the_official_script_reads_what_it_reads(said: str, value: int) -> None:
    assert judge.official_rating(said) == value


@pytest.mark.parametrize(("status", "reply"), [(500, {}), (200, {"choices": []}), (200, []), (302, {})])
def test_no_reply_is_a_sentence_and_nothing_is_written(answered: Path, endpoint: Endpoint, status: int, reply: Any) -> None:
    endpoint.status, endpoint.reply = status, reply
    with pytest.raises(ValueError, match="the judge judge at http://127.0.0.1:[0-9]+/v1 gave no reply"):
        judge.judge_run(RUN, judge.Judge(endpoint.url, "judge", PROMPT))
    assert len(endpoint.sent) == 1, "a redirection was followed: the key went along"
    assert not (paths.runs() / RUN.id / "judge").exists()


@pytest.mark.parametrize(("url", "prompt", "said"), [("file:///etc/passwd", PROMPT, "begins with http:// or https://"), ("http://x/v1", "Rate {answer}", "has no place for question: {question}, {reference}")])
def test_a_judge_that_cannot_be_asked_is_refused(url: str, prompt: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("{", r"\{").replace("}", r"\}")):
        judge.Judge(url, "judge", prompt)


def test_opinions_are_in_no_table(answered: Path, endpoint: Endpoint) -> None:
    from peftlab import metrics

    judge.judge_run(RUN, judge.Judge(endpoint.url, "judge", PROMPT))
    folder = collected.collect("mine", [RUN], scorer=metrics, stages=("evaluate",))
    assert all("judge-2026" not in file.read_text() for file in folder.iterdir() if file.suffix != ".parquet")
    assert not [c for c in pd.read_parquet(folder / "predictions.parquet") if c in ("rating", "said", "judge")]


def test_what_is_not_evaluated_says_so(work: Path) -> None:
    assert __main__.main(["judge", RUN.id, "mmhal", "--url", "http://x/v1", "--model", "j", "--prompt", "none.txt"]) == 2
