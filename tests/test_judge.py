"""The judge: what it is sent, what is read of its reply, what is kept; an endpoint on this machine stands for any."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
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
        self.spoil: Callable[[int], bytes | None] = lambda number: None  # the bytes sent instead of the reply to that request, counted from 1
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert self.path == "/v1/chat/completions"
        self.server.sent.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.keys.append(self.headers["Authorization"])
        spoilt = self.server.spoil(len(self.server.sent))
        if spoilt is not None:
            self.wfile.write(spoilt)
            return
        body = json.dumps(self.server.reply).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        if self.server.status == 302:
            self.send_header("Location", f"{self.server.url}/elsewhere")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing: tests are quiet."""


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint is asked again at once."""
    monkeypatch.setattr(judge, "PAUSES", (0, 0, 0))


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A running endpoint."""
    server = Endpoint()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def answer(examples: list[records.Example], *said: str) -> None:
    """Store an evaluation in which this was said."""
    stage = records.open_stage(RUN, "evaluate", inputs=records.inputs(RUN, "evaluate"))
    records.predictions(examples, said).to_parquet(stage.folder / "predictions.parquet")
    stage.finish(stamp={})


@pytest.fixture
def answered(work: Path, cache: Path) -> Path:
    """Two questions of MMHal-Bench, prepared and answered; the second answer holds a place of the prompt."""
    picture = Image.new("RGB", (8, 8))
    examples = [records.Example(f"m-{i}", f"m{i}", picture, f"What {i}?", ("A pizza.",), "attribute", 0, "food", (), ("Pizza", "Table")) for i in range(2)]
    records.write_examples("mmhal", {"test": examples})
    answer(examples, "A pizza and a fork.", "{reference} Rating: 6")
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
    [("Rating: 4", 4), ("**Rating:** 0, no information", 0), ("rating 3. My Rating: 3", 3), ("Rating: 3 or Rating: 4", None), ("Rating: 7", None), ("Four", None), ("", None), ("Rating: 10", None),
     ("Rating (0-6): 5", 5), ("**Rating** (0 to 6): **5**", 5), ("Rating [scale 0 – 6]\n5", 5), ("Rating (0-6): none", None), ("Rating (5): fair", 5), ("Rating (3/6). 2 things are wrong", 3),
     ("Rating: 4.5", None), ("Rating: 4,5", None), ("Rating: 4.0", 4), ("Rating: 4.5 or Rating: 4", None), ("Rating: 45.5", None), ("Rating: 3-4", None), ("Rating: 3 to 4", None),
     ("rating: 3/6", 3), ("Rating: 3. 2 forks are invented", 3), ("Rating: 3\n- 2 forks are invented", 3)],  # fmt: skip
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


@pytest.mark.parametrize(
    ("status", "reply", "times"),
    [(500, {}, 4), (503, {}, 4), (429, {}, 4), (401, {}, 1), (200, {"choices": []}, 1), (200, [], 1), (302, {}, 1), *((200, {"choices": [{"message": {"content": c}}]}, 1) for c in (None, ["Rating: 3"], 3))],
)
def test_no_reply_is_a_sentence_and_nothing_is_written(answered: Path, endpoint: Endpoint, status: int, reply: Any, times: int) -> None:
    endpoint.status, endpoint.reply = status, reply
    with pytest.raises(ValueError, match="the judge judge at http://127.0.0.1:[0-9]+/v1 gave no reply"):
        judge.judge_run(RUN, judge.Judge(endpoint.url, "judge", PROMPT))
    assert len(endpoint.sent) == times, "a redirection was followed: the key went along, or what may pass was not asked again"
    assert not (paths.runs() / RUN.id / "judge").exists()


CUT = b"HTTP/1.0 200 OK\r\nContent-Length: 99\r\n\r\n{"
TEXTS = {"question": "What?", "reference": "A pizza.", "answer": "A fork.", "objects": ""}


@pytest.mark.parametrize("spoilt", [CUT, b"", b"nothing of HTTP\r\n\r\n", b"HTTP/1.0 429 Slower\r\n\r\n", b"HTTP/1.0 502 Broken\r\n\r\n"])
def test_what_may_pass_is_asked_again_after_longer_and_longer(endpoint: Endpoint, spoilt: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(judge, "PAUSES", (1, 3, 9))
    monkeypatch.setattr(judge.time, "sleep", waited.append)
    endpoint.spoil = lambda number: spoilt if number < 4 else None
    assert judge.ask(judge.Judge(endpoint.url, "judge", PROMPT), TEXTS)["rating"] == 2
    assert waited == [1, 3, 9]
    endpoint.spoil = lambda number: spoilt
    with pytest.raises(ValueError, match="the judge judge at http://127.0.0.1:[0-9]+/v1 gave no reply"):
        judge.ask(judge.Judge(endpoint.url, "judge", PROMPT), TEXTS)
    assert len(endpoint.sent) == 8


@pytest.mark.parametrize("url", ["http://[::1/v1", "http://127.0.0.1:port/v1", "http://a b/v1", "http:///v1", "http://127.0.0.1:1/é", "http://127.0.0.1:1/v1"])
def test_an_address_that_leads_nowhere_is_named(url: str) -> None:
    with pytest.raises(ValueError) as raised:
        judge.ask(judge.Judge(url, "judge", PROMPT), TEXTS)
    assert str(raised.value).startswith(f"the judge judge at {url} gave no reply (")


@pytest.mark.parametrize("key", ["secret-key\r", "secret-key\n", " secret-key\r\n"])
def test_the_end_of_a_line_is_no_part_of_the_key(endpoint: Endpoint, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(judge.KEY, key)
    judge.ask(judge.Judge(endpoint.url, "judge", PROMPT), TEXTS)
    assert endpoint.keys == ["Bearer secret-key"]


@pytest.mark.parametrize("key", ["secret\rkey", "secret\nX-Other: key", "secret\x7fkey", "secret–key"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_told(endpoint: Endpoint, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(judge.KEY, key)
    with pytest.raises(ValueError, match="PEFTLAB_JUDGE_KEY in the environment holds a control character or one that is not Latin-1") as raised:
        judge.ask(judge.Judge(endpoint.url, "judge", PROMPT), TEXTS)
    assert not endpoint.sent and "secret" not in str(raised.value)


@pytest.mark.parametrize("spoilt", ["HTTP/1.0 401 {} is wrong\r\n\r\n", "{} is wrong\r\n\r\n", "HTTP/9{} 200 OK\r\n\r\n"])
def test_an_endpoint_that_sends_the_key_back_is_told_without_it(endpoint: Endpoint, spoilt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = r"secret\key'\"é"
    monkeypatch.setenv(judge.KEY, f"{key}\n")
    endpoint.spoil = lambda number: spoilt.format(key).encode("latin-1")
    with pytest.raises(ValueError, match=r"gave no reply .*\*\*\*") as raised:
        judge.ask(judge.Judge(endpoint.url, "judge", PROMPT), TEXTS)
    assert "secret" not in str(raised.value) and raised.value.__suppress_context__, "a traceback would hold the error that quotes it"
    with pytest.raises(ValueError, match=r"the judge's address is .\*\*\*.; it begins"):
        judge.Judge(key, "judge", PROMPT)


def opinions(folder: Path) -> list[str]:
    """The names of the files beside an evaluation's opinions."""
    return sorted(file.suffix for file in (folder / "judge" / "mmhal").iterdir())


def test_what_was_paid_for_is_not_asked_again(answered: Path, endpoint: Endpoint) -> None:
    asked, folder = judge.Judge(endpoint.url, "judge", PROMPT), paths.runs() / RUN.id
    endpoint.spoil = lambda number: b"HTTP/1.0 400 No\r\n\r\n" if number == 2 else None
    with pytest.raises(ValueError, match="gave no reply"):
        judge.judge_run(RUN, asked)
    assert opinions(folder) == [".jsonl"]
    (part,) = (folder / "judge" / "mmhal").iterdir()
    part.write_text(part.read_text() + '\n{"asked": "cu')  # the machine was switched off at the next
    endpoint.spoil = lambda number: b"HTTP/1.0 400 No\r\n\r\n" if number == 4 else None
    endpoint.reply = {"model": "other", "choices": [{"message": {"content": "Rating: 5"}}]}
    other = judge.Judge(endpoint.url, "other", PROMPT)
    with pytest.raises(ValueError, match="gave no reply"):
        judge.judge_run(RUN, other)
    assert len(endpoint.sent) == 4 and opinions(folder) == [".jsonl", ".jsonl"], "another judge's opinions were taken"
    endpoint.reply = {"model": "judge", "choices": [{"message": {"content": "Rating: 4"}}]}
    kept = json.loads(judge.judge_run(RUN, asked).read_text())
    assert len(endpoint.sent) == 5 and "What 1?" in endpoint.sent[-1]["messages"][0]["content"]
    assert [(o["example_id"], o["rating"], o["judge"]) for o in kept["opinions"]] == [("m-0", 2, "judge-2026/07"), ("m-1", 4, "judge")]
    assert opinions(folder) == [".json", ".jsonl"], "the other judge's stay"
    assert {o["rating"] for o in json.loads(judge.judge_run(RUN, judge.Judge(endpoint.url, "judge", f"{PROMPT} Rate it.")).read_text())["opinions"]} == {4}
    assert len(endpoint.sent) == 7


def test_an_opinion_of_an_answer_that_was_made_again_is_not_taken(answered: Path, endpoint: Endpoint) -> None:
    asked = judge.Judge(endpoint.url, "judge", PROMPT)
    endpoint.spoil = lambda number: b"HTTP/1.0 400 No\r\n\r\n" if number == 2 else None
    with pytest.raises(ValueError, match="gave no reply"):
        judge.judge_run(RUN, asked)
    shutil.rmtree(records.stage_folder(RUN, "evaluate"))
    answer(list(records.read_examples("mmhal", "test")), "A knife.", "A spoon.")
    judge.judge_run(RUN, asked)
    assert [m["messages"][0]["content"].partition("Said: ")[2] for m in endpoint.sent] == ["A pizza and a fork.", "{reference} Rating: 6", "A knife.", "A spoon."]


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
