"""A user's own data: every form of table is read as the same questions, and all that is wrong with one is said at once, row by row."""

import csv
import json
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from peftlab import __main__, datasets, paths, records
from peftlab.datasets import own

CARD = "label: My shelves\ntask: what is on the shelf\nlicence: CC0-1.0\ntable: questions.csv\npictures: pictures\n"
HEADER = ("image", "question", "answer", "choices", "id")


def picture(number: int) -> Image.Image:
    """A small picture of noise, a function of its number."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype="uint8"))


def row(number: int, **changes: object) -> dict[str, Any]:
    """A good row on a picture of its own."""
    return {"image": f"{number}.png", "question": f"Which is number {number}?", "answer": ("cat", "dog")[number % 2], "choices": "cat|dog", "id": f"q{number}", **changes}


def write_csv(file: Path, rows: Sequence[dict[str, Any]], header: Sequence[str] = HEADER) -> None:
    """A CSV as a spreadsheet would save it."""
    with file.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, header)
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def folder(work: Path, cache: Path) -> Path:
    """data/own/shelves with thirty pictures, thirty good rows and a card."""
    folder = paths.own() / "shelves"
    (folder / "pictures").mkdir(parents=True)
    for number in range(30):
        picture(number).save(folder / "pictures" / f"{number}.png")
    write_csv(folder / "questions.csv", [row(i) for i in range(30)])
    card(CARD)
    return folder


def card(text: str, name: str = "shelves") -> None:
    """Write a user's card."""
    (paths.own() / f"{name}.yaml").write_text(text, encoding="utf-8")


def loaded(split: str) -> list[records.Example]:
    """A split's examples as the pipeline loads them."""
    return list(datasets.load("shelves", split))


def everything() -> list[records.Example]:
    """The examples of all splits, by id, without what differs between forms of a table (the digest of a picture's bytes)."""
    found = sorted((e for split in datasets.SPLITS for e in loaded(split)), key=lambda e: e.example_id)
    return [replace(e, image=e.image.tobytes(), picture_id="", asset="") for e in found]


# ---------------------------------------------------------------- what is read


def test_a_card_makes_it_a_level_of_the_axis(folder: Path) -> None:
    from peftlab import style
    from peftlab.run import Run

    assert Run(dataset="shelves", test_dataset="shelves").tested_on == "shelves"
    assert style.order("dataset")[-1] == "shelves" and style.label("dataset", "shelves") == "My shelves"
    assert datasets.card("shelves").metric == "exact"


def test_splits_are_whole_pictures_and_the_seed_moves_them(folder: Path) -> None:
    rows = [row(i) for i in range(30)] + [row(i, id=f"again{i}", question="And the other?") for i in range(30)]
    write_csv(folder / "questions.csv", rows)
    split = {name: {e.picture_id for e in loaded(name)} for name in datasets.SPLITS}
    assert [len(split[name]) for name in datasets.SPLITS] == [21, 3, 6]
    assert len(set.union(*split.values())) == 30
    assert [len(loaded(name)) for name in datasets.SPLITS] == [42, 6, 12]
    write_csv(folder / "questions.csv", rows[::-1])
    assert {e.picture_id for e in loaded("test")} == split["test"], "the order of the rows must not matter"
    card(CARD + "seed: 1\n")
    assert {e.picture_id for e in loaded("test")} != split["test"]


def test_a_column_split_is_kept(folder: Path) -> None:
    given = ["test"] * 10 + ["train"] * 20
    write_csv(folder / "questions.csv", [row(i, split=given[i]) for i in range(30)], (*HEADER, "split"))
    assert sorted(e.example_id for e in loaded("test")) == sorted(f"shelves-q{i}" for i in range(10))
    assert [len(loaded(name)) for name in datasets.SPLITS] == [18, 2, 10], "validation is carved out of training"


def test_the_question_holds_its_choices_and_is_never_a_template(folder: Path) -> None:
    write_csv(folder / "questions.csv", [row(i, question="Is {choices} {question} %s?") for i in range(30)])
    assert loaded("test")[0].question == "Is {choices} {question} %s? Choices: cat, dog."
    card(CARD + 'prompt: "{choices}: {question} Answer shortly."\n')
    assert loaded("test")[0].question == "cat, dog: Is {choices} {question} %s? Answer shortly."


def forms() -> dict[str, Callable[[Path, list[dict[str, Any]]], str]]:
    """Other tables of the same rows: each writes one and returns its name."""
    import datasets as hub

    def jsonl(folder: Path, rows: list[dict[str, Any]]) -> str:
        lines = [json.dumps({**{k: v for k, v in r.items() if k != "answer"}, "answers": [r["answer"]], "choices": ["cat", "dog"]}) for r in rows]
        (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
        return "rows.jsonl"

    def table(folder: Path, rows: list[dict[str, Any]]) -> Any:
        rows = [{**r, "image": {"bytes": (folder / "pictures" / r["image"]).read_bytes(), "path": None}, "choices": ["cat", "dog"]} for r in rows]
        kinds = {name: hub.Value("string") for name in ("question", "answer", "id")}
        return hub.Dataset.from_list(rows, features=hub.Features({**kinds, "image": hub.Image(), "choices": hub.List(hub.Value("string"))}))

    def parquet(folder: Path, rows: list[dict[str, Any]]) -> str:
        table(folder, rows).to_parquet(str(folder / "rows.parquet"))
        return "rows.parquet"

    def saved(folder: Path, rows: list[dict[str, Any]]) -> str:
        table(folder, rows).save_to_disk(str(folder / "saved"))
        return "saved"

    return {"jsonl": jsonl, "parquet": parquet, "saved": saved}


@pytest.mark.parametrize("form", ["jsonl", "parquet", "saved"])
def test_every_form_of_table_gives_the_same_questions(folder: Path, form: str) -> None:
    expected = everything()
    name = forms()[form](folder, [row(i) for i in range(30)])
    if form in ("parquet", "saved"):
        shutil.rmtree(folder / "pictures")
    card(CARD.replace("questions.csv", name).replace("pictures: pictures\n", "" if form != "jsonl" else "pictures: pictures\n"))
    assert everything() == expected


def test_a_saved_folder_of_splits_keeps_them(folder: Path) -> None:
    import datasets as hub

    rows = [{"image": f"{i}.png", "question": "Which?", "answer": "cat"} for i in range(30)]
    hub.DatasetDict({"train": hub.Dataset.from_list(rows[:20]), "test": hub.Dataset.from_list(rows[20:])}).save_to_disk(str(folder / "saved"))
    card(CARD.replace("questions.csv", "saved"))
    assert {e.image.tobytes() for e in loaded("test")} == {picture(i).tobytes() for i in range(20, 30)}


def test_columns_may_be_called_otherwise(folder: Path) -> None:
    write_csv(folder / "questions.csv", [{"datei": f"{i}.png", "frage": "Which?", "antwort": "cat"} for i in range(30)], ("datei", "frage", "antwort"))
    card(CARD + "columns: {image: datei, question: frage, answer: antwort}\n")
    assert loaded("train")[0].question == "Which?"


def test_what_the_card_calls_ours_wins_over_a_column_of_that_name(folder: Path) -> None:
    import datasets as hub

    for header in ((*HEADER, "short"), ("short", *HEADER)):
        write_csv(folder / "questions.csv", [row(i, answer="a long text", short=("cat", "dog")[i % 2]) for i in range(30)], header)
        card(CARD + "columns: {answer: short}\n")
        assert {e.answers for e in loaded("train")} == {("cat",), ("dog",)}, header
    parts = ["train"] * 20 + ["validation"] * 4 + ["test"] * 6
    hub.Dataset.from_list([{"image": f"{i}.png", "question": "Which?", "answer": "cat", "part": part} for i, part in enumerate(parts)]).save_to_disk(str(folder / "saved"))
    card(CARD.replace("questions.csv", "saved") + "columns: {split: part}\n")
    assert {e.image.tobytes() for e in loaded("test")} == {picture(i).tobytes() for i in range(24, 30)}


def test_a_column_that_is_not_there_is_named_once(folder: Path) -> None:
    card(CARD + "columns: {answer: antwort}\n")
    assert own.check("shelves").problems == ["the table has no column 'antwort'; it has 'image', 'question', 'answer', 'choices', 'id' (columns in the card says what is called otherwise)"]
    (folder / "questions.csv").write_text((folder / "questions.csv").read_text().replace(",", ";"))
    card(CARD)
    assert [p.split(";")[0] for p in own.check("shelves").problems] == ["the table has no column 'image'", "the table has no column 'question'"]


@pytest.mark.parametrize(
    ("given", "answers"),
    [
        ({"answer": ["cup", "mug"]}, ("cup", "mug")), ({"answer": "a|b"}, ("a|b",)), ({"answer": 7}, ("7",)), ({"answers": 0}, ("0",)), ({"answers": " ", "answer": "cat"}, ("cat",)),
        ({"answers": [{"answer": "cup", "answer_id": 1}, {"answer": "mug", "answer_id": 2}]}, ("cup", "mug")), ({"answer": "[sic] 'so'"}, ("[sic] 'so'",)),
    ],
)  # fmt: skip
def test_answers_of_every_form_are_texts(folder: Path, given: dict[str, Any], answers: tuple[str, ...]) -> None:
    lines = [json.dumps({"image": f"{i}.png", "question": "Which?", **given}) for i in range(30)]
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    card(CARD.replace("questions.csv", "rows.jsonl"))
    assert {e.answers for e in loaded("train")} == {answers}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"answer": "['cup', 'mug']"}, "the column answer holds \"['cup', 'mug']\", which is a list written as a text"), ({"answers": [["cup"]]}, "the column answers holds list where"),
        ({"question": {"text": "Which?"}}, "the column question holds dict where a text or a number is needed"), ({"answer": "..."}, "nothing but stops and blanks"),
        ({"choices": ["The cup", "cup."], "answer": "cup."}, "two are the same but for case, articles or stops"), ({"image": "n" * 300}, "there is no picture 'nnn"),
    ],
)  # fmt: skip
def test_cells_that_nobody_meant_are_named(folder: Path, given: dict[str, Any], sentence: str) -> None:
    lines = [json.dumps({**row(i), "choices": None, **(given if i == 3 else {})}) for i in range(30)]
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    card(CARD.replace("questions.csv", "rows.jsonl"))
    (problem,) = own.check("shelves").problems
    assert problem.startswith("rows.jsonl row 4: ") and sentence in problem


@pytest.mark.parametrize(("more", "sentence"), [("metric: chair_s\n", "choose one of exact, equal"), ("metric: f1\n", "choose one of"), ('prompt: "{Question}"\n', "prompt holds {Question}; only {question} and {choices}")])
def test_a_card_that_could_not_be_scored_is_refused_before_anything_trains(folder: Path, more: str, sentence: str) -> None:
    card(CARD + more)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        own.check("shelves")


def test_letters_need_choices(folder: Path) -> None:
    write_csv(folder / "questions.csv", [row(i, choices="" if i == 2 else "cat|dog") for i in range(30)])
    card(CARD + "metric: letter_or_name\n")
    assert own.check("shelves").problems == ["questions.csv row 3: there are no choices: the metric letter_or_name needs them"]


def test_lines_of_json_end_where_they_end(folder: Path) -> None:
    odd = "what?\u2028next\u2029and\u0085so\x0c on"
    (folder / "rows.jsonl").write_text("\r\n".join(json.dumps({**row(i, question=odd), "choices": None}, ensure_ascii=False) for i in range(30)), encoding="utf-8", newline="")
    card(CARD.replace("questions.csv", "rows.jsonl"))
    assert loaded("train")[0].question == odd


def test_names_with_accents_are_found_however_they_are_composed(folder: Path) -> None:
    (folder / "pictures" / "1.png").rename(folder / "pictures" / "e\u0301.png")
    write_csv(folder / "questions.csv", [row(i, image="\u00e9.png" if i == 1 else f"{i}.png") for i in range(30)])
    assert own.check("shelves").problems == []


def test_pictures_may_lie_in_a_plain_column_of_bytes(folder: Path) -> None:
    import pandas as pd

    whole = everything()
    pd.DataFrame([{**row(i), "image": (folder / "pictures" / f"{i}.png").read_bytes()} for i in range(30)]).to_parquet(folder / "rows.parquet")
    card(CARD.replace("questions.csv", "rows.parquet"))
    assert everything() == whole


def test_several_answers_are_kept_in_their_order(folder: Path) -> None:
    write_csv(folder / "questions.csv", [{"image": f"{i}.png", "question": "Which?", "answers": "cat|tom cat| cat |puss"} for i in range(30)], ("image", "question", "answers"))
    card(CARD + "metric: vqa\n")
    assert loaded("train")[0].answers == ("cat", "tom cat", "cat", "puss")


def conversation(number: int, *turns: str, **changes: object) -> dict[str, Any]:
    """A conversation as LLaVA's files hold it."""
    said = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(turns)]
    return {"id": f"c{number}", "image": f"{number}.png", "conversations": said, **changes}


def test_llavas_conversations_become_an_example_a_turn(folder: Path) -> None:
    listed = [conversation(i, "<image>\nWhat is it?", "A cat.", "What colour?", "Black.") for i in range(10)]
    listed += [{"id": f"text{i}", "conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}]} for i in range(3)]
    (folder / "talk.json").write_text(json.dumps(listed))
    card(CARD.replace("questions.csv", "talk.json"))
    assert list(own.sentences("shelves", own.check("shelves")))[-1] == "3 rows without a picture are passed over"
    with pytest.warns(UserWarning, match="3 rows without a picture were passed over"):
        train = loaded("train")
    assert [(e.question, e.answers) for e in train[:2]] == [("What is it?", ("A cat.",)), ("What colour?", ("Black.",))]
    assert train[0].picture_id == train[1].picture_id and train[0].example_id == "shelves-" + train[1].example_id[8:-2] + "-0"


def test_a_conversation_out_of_turn_is_named(folder: Path) -> None:
    (folder / "talk.json").write_text(json.dumps([conversation(1, "<image>\nWhat?", "A cat."), conversation(2, "<image>\nWhat?"), conversation(3), {"id": 4}, 5, {**conversation(6), "conversations": [{"from": "human", "value": "a"}, "x", {"from": "gpt", "value": "b"}]}]))
    card(CARD.replace("questions.csv", "talk.json"))
    assert own.check("shelves").problems == [f"talk.json conversation {i}: human and gpt do not take turns" for i in (2, 3, 4, 5, 6)]


# ---------------------------------------------------------------- what is wrong


def bomb(side: int) -> bytes:
    """A small PNG that says it is a white square of this side."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes((side // 8 + 1) * side))) + chunk(b"IEND", b"")


def test_all_that_is_wrong_is_said_at_once_by_row(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = folder / "pictures"
    whole = (pictures / "6.png").read_bytes()
    (pictures / "6.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "7.png").write_bytes(bomb(20000))
    (pictures / "8.png").write_text("%!PS-Adobe-3.0 EPSF-3.0")
    (pictures / "14.png").write_bytes(bomb(9000))
    (paths.own() / "secret.png").write_bytes(whole)
    (pictures / "link.png").symlink_to(paths.own() / "secret.png")
    damaged = {
        1: row(1, image="nowhere.png"), 2: row(2, answer=" "), 3: row(3, answer="cow"), 4: row(4, id="q5"), 9: row(9, image="../../secret.png"), 10: row(10, image="/etc/hostname"),
        11: row(11, question=""), 12: row(12, image=""), 13: row(13, image="link.png"), 15: row(15, choices="dog|dog"),
    }  # fmt: skip
    write_csv(folder / "questions.csv", [damaged.get(i, row(i)) for i in range(30)])
    assert __main__.main(["check", "shelves"]) == 2
    said = capsys.readouterr().err.splitlines()
    expected = [
        (2, "there is no picture 'nowhere.png'"), (3, "the answer is empty"), (4, "the answer 'cow' is not among the choices 'cat', 'dog'"), (7, "does not decode: it is cut short"),
        (8, "does not decode: it is too large"), (9, "does not decode: it is no picture of a kind that is read"), (10, "'../../secret.png' leads out of the folder"),
        (11, "'/etc/hostname' leads out of the folder"), (12, "the question is empty"), (13, "no picture is named"), (14, "'link.png' leads out of the folder"),
        (15, "it is too large: 9000 x 9000 pixels, of which at most 50,000,000 are read"), (16, "are not two or more different ones"),
    ]  # fmt: skip
    assert len(said) == len(expected) + 1
    for line, (number, sentence) in zip(said, expected, strict=False):
        assert line.startswith(f"questions.csv row {number}: ") and sentence in line
    assert said[-1] == "id 'q5' is given to 2 rows"


def test_nothing_is_written_of_data_with_a_problem(folder: Path) -> None:
    write_csv(folder / "questions.csv", [row(i, answer="" if i == 3 else "cat") for i in range(30)])
    with pytest.raises(ValueError, match="shelves cannot be used:\nquestions.csv row 4: the answer is empty"):
        records.write_examples("shelves", {split: datasets.load("shelves", split) for split in datasets.SPLITS})
    assert not paths.prepared().exists()


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([row(i, split="dev" if i else "train") for i in range(3)], "row 2: the split is 'dev'; train, validation, test, or empty in every row"),
        ([row(i, split=("train", "")[i]) for i in range(2)], "some rows have a split and some have none"),
        ([row(1, split="train"), row(1, split="test", id="other")], "the picture 1.png is in test and train"),
        ([row(1), row(2)], "shelves: nothing is in the split train: there are 2 rows on too few pictures"),
    ],
)
def test_splits_that_cannot_be_are_said(folder: Path, rows: list[dict[str, Any]], sentence: str) -> None:
    write_csv(folder / "questions.csv", rows, (*HEADER, "split"))
    assert any(sentence in line for line in own.check("shelves").problems)


def test_a_picture_with_another_name_in_another_split_is_the_same_picture(folder: Path) -> None:
    shutil.copy(folder / "pictures" / "1.png", folder / "pictures" / "copy.png")
    write_csv(folder / "questions.csv", [row(1, split="train"), row(2, split="validation"), row(3, image="copy.png", split="test")], (*HEADER, "split"))
    assert own.check("shelves").problems == ["the picture copy.png is in test and train"]
    Image.open(folder / "pictures" / "1.png").save(folder / "pictures" / "copy.png", compress_level=0)
    assert (folder / "pictures" / "copy.png").read_bytes() != (folder / "pictures" / "1.png").read_bytes()
    assert own.check("shelves").problems == ["the picture copy.png is in test and train"], "what it shows counts, not how it is packed"


def test_a_row_with_more_or_fewer_cells_is_named(folder: Path) -> None:
    lines = (folder / "questions.csv").read_text().splitlines()
    lines[3] += ",more"
    lines[5] = "4.png,Which?"
    lines[7] = lines[7].replace(",cat,", ",,").replace(",dog,", ",,")
    (folder / "questions.csv").write_text("\n".join(lines))
    assert own.check("shelves").problems == [*(f"questions.csv row {i}: it has not as many cells as the header" for i in (3, 5)), "questions.csv row 7: the answer is empty"]


def test_every_line_of_json_lines_that_is_none_is_named(folder: Path) -> None:
    good = '{"image": "%d.png", "question": "Which?", "answer": "cat"}'
    (folder / "rows.jsonl").write_text("\n".join([good % 1, '{"image"', "", "[1]", good.replace("cat", "") % 2, good % 3]))
    card(CARD.replace("questions.csv", "rows.jsonl"))
    syntax, *others = own.check("shelves").problems
    assert syntax.startswith("rows.jsonl row 2 is not readable JSON: ")
    assert others == ["rows.jsonl row 3 is no mapping of columns to values", "rows.jsonl row 4: the answer is empty"]


def test_half_a_character_is_named(folder: Path) -> None:
    (folder / "rows.jsonl").write_text('{"image": "1.png", "question": "Which \\ud83d?", "answer": "cat"}')
    card(CARD.replace("questions.csv", "rows.jsonl"))
    assert own.check("shelves").problems == ["rows.jsonl row 1: a text holds half a character (a lone surrogate), which no file can keep"]


def test_archives_are_not_opened(folder: Path) -> None:
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        archive.writestr("../../climbs.csv", "image,question,answer\n")
    for text in (CARD.replace("questions.csv", "all.zip"), CARD.replace("pictures: pictures", "pictures: all.zip")):
        card(text)
        with pytest.raises(ValueError, match="is an archive, and archives are not opened: unpack it"):
            own.check("shelves")
    assert not list(paths.own().rglob("climbs.csv")) and not (paths.own().parent / "climbs.csv").exists()


@pytest.mark.parametrize(
    ("table", "content", "sentence"),
    [
        ("talk.json", "{}", "talk.json is no list of conversations"), ("talk.json", "[" * 100_000, "talk.json is not readable JSON"), ("rows.csv", 'image\n"open', "rows.csv is not a readable CSV"),
        ("rows.jsonl", b"\xff\xfe", "rows.jsonl is not UTF-8"), ("rows.xlsx", "", "rows.xlsx is no table: .csv, .jsonl, .parquet, .json"), ("../shelves.yaml", None, "leads out of the folder"),
        ("none.csv", None, "there is no table"), ("rows.parquet", b"PAR1 cut", "rows.parquet is no readable Parquet: Parquet magic bytes not found"), ("rows.parquet", "", "rows.parquet is no readable Parquet"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_read_says_why(folder: Path, table: str, content: str | bytes | None, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    if content is not None:
        (folder / table).write_bytes(content.encode() if isinstance(content, str) else content)
    card(CARD.replace("questions.csv", table))
    assert __main__.main(["check", "shelves"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("peftlab check: ") and sentence in said and said.count("\n") == 1


def test_a_saved_folder_that_is_broken_is_named(folder: Path) -> None:
    card(CARD.replace("questions.csv", forms()["saved"](folder, [row(i) for i in range(30)])))
    (folder / "saved" / "state.json").write_text("{")
    with pytest.raises(ValueError, match="saved was not saved by datasets, or is broken: Expecting property name"):
        own.check("shelves")


# ---------------------------------------------------------------- the card


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (CARD + "metrik: exact\n", "'metrik' is not a key of a card; the keys are label, task"), (CARD.replace("label: My shelves\n", ""), "label is missing; a text"),
        (CARD + "test: 1.5\n", "test is 1.5; a share of the pictures above 0 and below 1"), (CARD + "test: 0.6\nvalidation: 0.5\n", "nothing is left to train on"),
        (CARD + "seed: yes\n", "seed is True; a whole number"), (CARD + "answer_tokens: 0\n", "answer_tokens is 0; a whole number of at least 1"),
        (CARD + "columns: {picture: datei}\n", "columns names 'picture'; the columns are image, question"), ("[1", "is not readable YAML"), ("- a", "a card is a mapping"),
        (CARD + "task: !!python/object/apply:os.system [echo]\n", "is not readable YAML"),
    ],
)  # fmt: skip
def test_a_card_that_does_not_hold_names_file_and_key(folder: Path, text: str, sentence: str) -> None:
    card(text)
    with pytest.raises(ValueError) as raised:
        datasets.card("shelves")
    assert str(raised.value).startswith(str(paths.own() / "shelves.yaml")) and sentence in str(raised.value)


def test_names_are_checked_and_never_hide_a_built_in_set(folder: Path) -> None:
    card(CARD, "My-shelves")
    with pytest.raises(ValueError, match="'My-shelves' names the data set: small letters, digits and _"):
        datasets.card("My-shelves")
    card(CARD.replace("My shelves", "Not these"), "scenes")
    assert datasets.card("scenes").label == "Scenes" and datasets.names().count("scenes") == 1
    with pytest.raises(ValueError, match="scenes is built in"):
        own.check("scenes")
    with pytest.raises(ValueError, match="metric is 'exakt'; choose one of exact"):
        card(CARD + "metric: exakt\n")
        own.check("shelves")


def test_a_change_of_card_table_or_picture_makes_it_unprepared(folder: Path) -> None:
    def prepare() -> dict[str, str]:
        found = records.write_examples("shelves", {split: datasets.load("shelves", split) for split in datasets.SPLITS})
        assert records.is_prepared("shelves")
        return found

    first = prepare()
    ids = json.loads((paths.prepared() / "shelves" / "ids.json").read_text())
    assert ids == {split: [e.example_id for e in loaded(split)] for split in datasets.SPLITS}
    (folder / "pictures" / "9.png").touch()
    assert records.is_prepared("shelves"), "the same content at another time is the same"
    card(CARD + 'prompt: "{question} Say it."\n')
    assert not records.is_prepared("shelves")
    second = prepare()
    assert all(first[split] != second[split] for split in first)
    picture(99).save(folder / "pictures" / "9.png")
    assert not records.is_prepared("shelves")
    prepare()
    write_csv(folder / "questions.csv", [row(i, answer="cat") for i in range(30)])
    assert not records.is_prepared("shelves")


def test_what_contributing_shows_is_read(work: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The card and the table as they stand in CONTRIBUTING.md; two rows are too few for three splits, which is said."""
    text = (paths.root() / "CONTRIBUTING.md").read_text(encoding="utf-8")
    _, _, section = text.partition("## Your own data\n")
    blocks = {kind: content for kind, content in re.findall(r"```(yaml|csv)\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)}
    photos = paths.own() / "shelves" / "photos"
    photos.mkdir(parents=True)
    for number, name in enumerate(("left.jpg", "top.jpg")):
        picture(number).save(photos / name)
    card(blocks["yaml"])
    (paths.own() / "shelves" / "questions.csv").write_text(blocks["csv"])
    assert __main__.main(["check", "shelves"]) == 2
    assert capsys.readouterr().err.splitlines() == ["shelves: nothing is in the split train: there are 2 rows on too few pictures"]
    more = "".join(f"{n}.jpg,Which?,cup,cup|book\n" for n in range(8))
    for number in range(8):
        picture(10 + number).save(photos / f"{number}.jpg")
    (paths.own() / "shelves" / "questions.csv").write_text(blocks["csv"] + more)
    assert __main__.main(["check", "shelves"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"shelves/{split}: {n} questions on {n} pictures" for split, n in (("train", 7), ("validation", 1), ("test", 2))]
    asked = {e.question for split in datasets.SPLITS for e in loaded(split)}
    assert "What is on top, if anything? Choices: cup, book." in asked
    keys = set(re.findall(r"`(\w+)`", section.partition("- More keys")[2].partition("\n\n")[0])) - {"exact", "vqa", "cider"}
    assert keys | {"label", "task", "licence", "table", "pictures"} == set(datasets.OWN)
