"""The published benchmarks, read from small files with the columns and types of the real ones: what is asked, what is accepted, what is held out."""

import io
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from peftlab import collected, datasets, estimates, metrics, models, paths, records, tables
from peftlab.datasets import published
from peftlab.run import Run

STRING, INT, IMAGE = "string", "int64", "image"
PEOPLE = ["pizza"] * 3 + ["a pizza"] * 2 + ["food"] * 4 + ["pie"]
ANSWERS = [{"answer": said, "answer_confidence": "yes", "answer_id": i + 1} for i, said in enumerate(PEOPLE)]
ANSWER = {"answer": STRING, "answer_confidence": STRING, "answer_id": INT}


def png(number: int) -> bytes:
    """A picture of noise as a file's bytes, a function of its number."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (12, 16, 3), dtype="uint8")).save(buffer, "PNG")
    return buffer.getvalue()


def feature(kind: Any) -> Any:
    """What `datasets` calls a column's type, from our short forms."""
    import datasets as hub

    if isinstance(kind, list):
        return hub.List(feature(kind[0]))
    if isinstance(kind, dict):
        return {name: feature(inner) for name, inner in kind.items()}
    return hub.Image() if kind == IMAGE else hub.Value(kind)


def write(repository: str, file: str, columns: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """A Parquet file in the place of a hub repository's."""
    import datasets as hub

    where = paths.hub() / repository / file
    where.parent.mkdir(parents=True, exist_ok=True)
    rows = [{**row, **{name: {"bytes": row[name], "path": None} for name, kind in columns.items() if kind == IMAGE and row[name] is not None}} for row in rows]
    hub.Dataset.from_list(rows, features=hub.Features({name: feature(kind) for name, kind in columns.items()})).to_parquet(str(where))


def both(repository: str, names: tuple[str, str], columns: dict[str, Any], row: Any, number: int = 12) -> None:
    """A training and a test file of one repository."""
    for part, name in enumerate(names):
        write(repository, name, columns, [row(100 * part + i) for i in range(number)])


def write_scienceqa() -> None:
    columns = {
        "image": IMAGE, "question": STRING, "choices": [STRING], "answer": "int8", "hint": STRING, "task": STRING, "grade": STRING, "subject": STRING, "topic": STRING,
        "category": STRING, "skill": STRING, "lecture": STRING, "solution": STRING,
    }  # fmt: skip
    text = {"hint": ""} | dict.fromkeys(("task", "grade", "topic", "category", "skill", "lecture", "solution"), "x")
    both(
        "derek-thomas/ScienceQA", ("data/train-00000-of-00001-1028f23e353fbe3e.parquet", "data/test-00000-of-00001-f0e719df791966ff.parquet"), columns,
        lambda i: {"image": None if i % 3 == 2 else png(i), "question": f"Which state is {i}?", "choices": ["Ohio", "Iowa", "Utah"], "answer": i % 3, "subject": "social science", **text},
    )  # fmt: skip


def release_iconqa(kind: str, **more: Any) -> None:
    for part in ("train", "test"):
        for i in range(12):
            folder = paths.hub() / "iconqa/iconqa_data/iconqa" / part / kind / str(100 * (part == "test") + i)
            folder.mkdir(parents=True)
            (folder / "image.png").write_bytes(png(100 * (part == "test") + i))
            (folder / "data.json").write_text(json.dumps({"question": f"How many? {i}", "ques_type": kind, "grade": "grade1", "label": "S2", **more}))


def write_vizwiz() -> None:
    columns = {"question_id": STRING, "image": IMAGE, "question": STRING, "answers": [STRING], "category": STRING}
    row = {"question": "What is it?", "answers": PEOPLE, "category": "other"}
    write("lmms-lab/VizWiz-VQA", "data/val-00000-of-00005-7775fd61bc6a3d98.parquet", columns, [{"question_id": f"VizWiz_val_{i:08}.jpg", "image": png(100 + i), **row} for i in range(12)])
    folder = paths.hub() / "vizwiz"
    (folder / "Annotations").mkdir(parents=True)
    (folder / "train").mkdir()
    said = [{"answer": a, "answer_confidence": "yes"} for a in PEOPLE]
    listed = [{"image": f"VizWiz_train_{i:08}.jpg", "question": "What is it?", "answers": said, "answer_type": "other", "answerable": 1} for i in range(12)]
    (folder / "Annotations" / "train.json").write_text(json.dumps(listed))
    for i in range(12):
        (folder / "train" / f"VizWiz_train_{i:08}.jpg").write_bytes(png(i))


def write_flickr30k() -> None:
    columns = {"image": IMAGE, "caption": [STRING], "sentids": [STRING], "split": STRING, "img_id": STRING, "filename": STRING}
    rows = [
        {"image": png(i), "caption": [f"A dog runs {i}.", *(f"Caption {n}." for n in range(4))], "sentids": ["1"] * 5, "split": ("train", "val", "test")[i // 12], "img_id": str(i), "filename": f"{i}.jpg"}
        for i in range(36)
    ]  # fmt: skip
    write("nlphuji/flickr30k", "TEST/test/0000.parquet", columns, rows)


def write_okvqa() -> None:
    train = {"image": IMAGE, "question_type": STRING, "confidence": "int32", "answers": [STRING], "answers_original": [{**ANSWER, "raw_answer": STRING}], "id_image": INT, "answer_type": STRING, "question_id": INT, "question": STRING}
    said = [{**a, "raw_answer": a["answer"]} for a in ANSWERS]
    row = {"question": "What is eaten?", "question_type": "four", "answer_type": "other"}
    write("Multimodal-Fatima/OK-VQA_train", "data/train-00000-of-00004-x.parquet", train, [{"image": png(i), "confidence": 3, "answers": ["pizza", "food"], "answers_original": said, "id_image": i, "question_id": 10 * i, **row} for i in range(12)])
    test = {"question_id": STRING, "image": IMAGE, "question": STRING, "answers": [STRING], "question_type": STRING, "answer_type": STRING}
    write("lmms-lab/OK-VQA", "data/val2014-00000-of-00002.parquet", test, [{"question_id": str(i), "image": png(100 + i), "answers": PEOPLE, **row} for i in range(12)])


def write_ocrvqa() -> None:
    box = {"word": STRING, "bounding_box": dict.fromkeys(("width", "height", "top_left_x", "top_left_y"), "float64")}
    columns = {
        "image": IMAGE, "image_id": STRING, "questions": [STRING], "answers": [STRING], "ocr_tokens": [STRING], "ocr_info": [box], "title": STRING, "authorName": STRING, "genre": STRING,
        "image_width": INT, "image_height": INT, "image_url": STRING, "set_name": STRING,
    }  # fmt: skip
    text = dict.fromkeys(("title", "authorName", "genre", "image_url", "set_name"), "x") | {"image_width": 16, "image_height": 12, "ocr_tokens": [], "ocr_info": []}
    both(
        "howard-hou/OCR-VQA", ("data/train-00000-of-00016-x.parquet", "data/test-00000-of-00002-x.parquet"), columns,
        lambda i: {"image": png(i), "image_id": f"b{i}", "questions": ["Who wrote this book?", "What is the title?"], "answers": [f"Author {i}", f"Title {i}"], **text},
    )  # fmt: skip


def write_vqav2() -> None:
    shared = {"question_type": STRING, "multiple_choice_answer": STRING, "answer_type": STRING, "question_id": INT, "question": STRING, "image": IMAGE}
    row = {"question_type": "what is", "multiple_choice_answer": "food", "answer_type": "other", "question": "What is eaten?"}
    train = shared | {"answers": [STRING], "answers_original": [ANSWER], "id_image": INT, "id": INT}
    write("Multimodal-Fatima/VQAv2_train", "data/train-00000-of-00143-x.parquet", train, [{"answers": ["food"], "answers_original": ANSWERS, "id_image": i // 2, "id": i, "question_id": i, "image": png(i // 2), **row} for i in range(24)])
    test = shared | {"answers": [ANSWER], "image_id": INT}
    write("lmms-lab/VQAv2", "data/validation-00000-of-00068.parquet", test, [{"answers": ANSWERS, "image_id": 100 + i, "question_id": i, "image": png(100 + i), **row} for i in range(12)])


def write_gqa() -> None:
    asked = {"id": STRING, "imageId": STRING, "question": STRING, "answer": STRING, "fullAnswer": STRING, "isBalanced": "bool"}
    for part, first in (("train", 0), ("testdev", 100)):
        rows = [{"id": str(1000 + first + i), "imageId": f"n{first + i // 2}", "question": "Is it red?", "answer": "yes", "fullAnswer": "Yes, it is.", "isBalanced": True} for i in range(24)]
        write("lmms-lab/GQA", f"{part}_balanced_instructions/{part}-00000-of-00001.parquet", asked, rows)
        write("lmms-lab/GQA", f"{part}_balanced_images/{part}-00000-of-00001.parquet", {"id": STRING, "image": IMAGE}, [{"id": f"n{first + i}", "image": png(first + i)} for i in range(12)][::-1])


def write_textvqa() -> None:
    columns = {
        "image_id": STRING, "question_id": "int32", "question": STRING, "question_tokens": [STRING], "image": IMAGE, "image_width": "int32", "image_height": "int32",
        "flickr_original_url": STRING, "flickr_300k_url": STRING, "answers": [STRING], "image_classes": [STRING], "set_name": STRING, "ocr_tokens": [STRING],
    }  # fmt: skip
    text = dict.fromkeys(("flickr_original_url", "flickr_300k_url", "set_name"), "x") | {"question_tokens": [], "image_width": 16, "image_height": 12, "image_classes": [], "ocr_tokens": []}
    both(
        "lmms-lab/textvqa", ("data/train-00000-of-00020.parquet", "data/validation-00000-of-00003.parquet"), columns,
        lambda i: {"image_id": f"t{i}", "question_id": i, "question": "What does it say?", "image": png(i), "answers": PEOPLE, **text},
    )  # fmt: skip


def write_coco_captions() -> None:
    sentence = {"tokens": [STRING], "raw": STRING, "imgid": "int32", "sentid": "int32"}
    columns = {"image": IMAGE, "filepath": STRING, "sentids": ["int32"], "filename": STRING, "imgid": "int32", "split": STRING, "sentences": sentence, "cocoid": "int32"}
    for part, first in (("train", 0), ("test", 100)):
        rows = [
            {"image": png(first + i), "filepath": "val2014", "sentids": [n], "filename": "x.jpg", "imgid": i, "split": part, "cocoid": first + i,
             "sentences": {"tokens": [], "raw": f"Caption {n} of {i}. ", "imgid": i, "sentid": n}}
            for n in (4, 2, 0, 1, 3) for i in range(12)
        ]  # fmt: skip
        write("bitmind/MS-COCO", f"data/{part}-00000-of-00182.parquet", columns, rows)


def pope_rows(number: int = 6) -> list[dict[str, Any]]:
    return [
        {"id": str(i), "question_id": str(i), "question": f"Is there {('a dog', 'an apple')[i % 2]} in the image?", "answer": ("yes", "no")[i % 2], "image_source": f"COCO_val2014_{i // 2}", "image": png(i // 2), "category": kind}
        for kind in ("random", "popular", "adversarial") for i in range(number)
    ]  # fmt: skip


def write_pope() -> None:
    columns = dict.fromkeys(("id", "question_id", "question", "answer", "image_source"), STRING) | {"image": IMAGE, "category": STRING}
    write("lmms-lab/POPE", "data/test-00000-of-00003.parquet", columns, pope_rows())


def write_repope() -> None:
    columns = {"image": IMAGE, "image_id": STRING, "question": STRING, "answer": STRING, "category": STRING}
    rows = [{"image": r["image"], "image_id": r["image_source"], "question": r["question"], "answer": "no", "category": r["category"]} for r in pope_rows()[1:]]
    write("MM-Hallu/RePOPE", "repope-00000.parquet", columns, rows)


def release_mmhal() -> None:
    folder = paths.hub() / "Shengcao1006/MMHal-Bench"
    (folder / "images").mkdir(parents=True)
    listed = [
        {"question_type": ("attribute", "counting")[i % 2], "question_topic": "food", "image_id": f"i{i}", "image_src": f"https://somewhere/{i}_o.jpg", "image_content": ["Pizza", "Table"],
         "question": "What is eaten?", "gt_answer": "A pizza is on the table.", "model_answer": ""}
        for i in range(12)
    ]  # fmt: skip
    (folder / "response_template.json").write_text(json.dumps(listed))
    for i in range(12):
        (folder / "images" / f"{i}_o.jpg").write_bytes(png(i))


WRITERS = {
    "scienceqa": write_scienceqa, "iconqa_txt": lambda: release_iconqa("choose_txt", choices=["1", "2", "3"], answer=1), "iconqa_blank": lambda: release_iconqa("fill_in_blank", answer="7"),
    "vizwiz": write_vizwiz, "flickr30k": write_flickr30k, "okvqa": write_okvqa, "ocrvqa": write_ocrvqa, "vqav2": write_vqav2, "gqa": write_gqa, "textvqa": write_textvqa,
    "coco_captions": write_coco_captions, "pope": write_pope, "repope": write_repope, "mmhal": release_mmhal,
}  # fmt: skip
MOST_FIRST = ("food", "pizza", "pizza", "pizza", "a pizza", "a pizza", "food", "food", "food", "pie")
PHRASE = " Answer the question using a single word or phrase."
UNSURE = ' When the information is insufficient, respond with "Unanswerable".'
ASKED = {  # what the first question of the test split is, whatever its number, and what is accepted
    "scienceqa": ("Which state is N? A.Ohio, B.Iowa, C.Utah", ("A", "Ohio")),
    "iconqa_txt": ("How many? N Choices: 1, 2, 3. Choose an option from the choices to answer the question.", ("2",)),
    "iconqa_blank": ("How many? N Fill in the blanks in (_) or answer this question.", ("7",)),
    "vizwiz": (f"Question: What is it?{UNSURE}{PHRASE}", MOST_FIRST),
    "okvqa": (f"What is eaten?{PHRASE}", MOST_FIRST),
    "ocrvqa": (f"Who wrote this book?{PHRASE}", ("Author N",)),
    "vqav2": (f"What is eaten?{PHRASE}", MOST_FIRST),
    "gqa": (f"Is it red?{PHRASE}", ("yes",)),
    "textvqa": (f"What does it say?{PHRASE}", MOST_FIRST),
    "pope": ("Is there a dog in the image?", ("yes",)),
    "repope": ("Is there an apple in the image?", ("no",)),
    "mmhal": ("What is eaten?", ("A pizza is on the table.",)),
}
TRAINED = [name for name in WRITERS if "train" in datasets.card(name).sizes]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files of every benchmark, written once."""
    folder = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEFTLAB_HUB", str(folder))
        for writer in WRITERS.values():
            writer()
    return folder


@pytest.fixture
def files(written: Path, work: Path, cache: Path) -> Path:
    """The folder data/hub with small files of every benchmark."""
    return Path(shutil.copytree(written, paths.hub()))


def small(monkeypatch: pytest.MonkeyPatch, validation: int = 3) -> None:
    """Cards that ask for as many as the small files have, and for so small a validation part."""
    for name in WRITERS:
        card = datasets.card(name)
        monkeypatch.setitem(datasets.DATASETS, name, replace(card, sizes={split: validation if split == "validation" and name != "flickr30k" else None for split in card.sizes}))


def unnumbered(text: str, number: int) -> str:
    return text.replace(f" {number}", " N")


def test_every_published_card_has_small_files_here() -> None:
    assert set(WRITERS) == {name for name, card in datasets.DATASETS.items() if card.module == "published"} == set(published.SETS)


@pytest.mark.parametrize("name", ASKED)
def test_a_question_is_posed_in_the_papers_words_and_its_answers_are_kept(files: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    question, answers = ASKED[name]
    numbers = [*range(12), *range(100, 112)]
    found = [(unnumbered(e.question, n), tuple(unnumbered(a, n) for a in e.answers)) for e in datasets.load(name, "test") for n in numbers]
    assert (question, answers) in found, found[0]


@pytest.mark.parametrize("name", WRITERS)
def test_the_examples_can_be_prepared_and_the_right_answer_earns_everything(files: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    splits = {split: list(datasets.load(name, split)) for split in datasets.card(name).sizes}
    records.write_examples(name, splits)
    back = records.read_examples(name, "test")
    said = [max(Counter(e.answers), key=Counter(e.answers).get) if datasets.card(name).metric in metrics.PEOPLE else e.answers[0] for e in back]
    score = metrics.score(records.predictions(back, said), datasets.card(name).metric)
    assert score["value"] >= (99 if datasets.card(name).metric != "cider" else 200 if name != "mmhal" else 0) and score["unparsed"] == 0
    pictures = {split: {e.picture_id for e in found} for split, found in splits.items()}
    assert sum(len(found) for found in pictures.values()) == len(set().union(*pictures.values())), "a picture is in two splits"
    assert all(e.example_id.startswith(f"{e.picture_id}-") and e.picture_id.startswith(f"{name}-") for e in back)


@pytest.mark.parametrize("name", TRAINED)
def test_validation_is_whole_pictures_carved_out_of_training(files: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    train, validation, test = ([e.picture_id for e in datasets.load(name, split)] for split in ("train", "validation", "test"))
    assert validation and not set(train) & set(validation) and len(set(train + validation)) == (8 if name == "scienceqa" else 12) + (12 if name == "flickr30k" else 0)
    assert [e.picture_id for e in datasets.load(name, "train", 4)] == train[:4], "a size takes the first of one order"
    assert train != sorted(train) or len(train) < 3, "the order is that of digests"


def test_subsamples_do_not_depend_on_the_order_of_the_files(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    before = [e.example_id for e in datasets.load("textvqa", "train", 5)]
    import datasets as hub

    file = next((files / "lmms-lab/textvqa/data").glob("train-*"))
    table = hub.Dataset.from_parquet(str(file), cache_dir=str(paths.cache() / "other"))
    table.select(range(len(table) - 1, -1, -1)).to_parquet(str(file))
    assert [e.example_id for e in datasets.load("textvqa", "train", 5)] == before


def test_the_pictures_belong_to_the_questions(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GQA's pictures lie in a table of their own, in another order."""
    small(monkeypatch)
    for e in datasets.load("gqa", "test"):
        number = int(e.picture_id.rpartition("n")[2])
        assert e.image.tobytes() == Image.open(io.BytesIO(png(number))).tobytes()


def test_all_captions_of_a_picture_are_its_references_in_their_order(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    found = list(datasets.load("coco_captions", "test"))
    assert len(found) == 12 and all(e.answers == tuple(f"Caption {n} of {int(e.picture_id.rpartition('-')[2]) - 100}." for n in range(5)) for e in found)
    asked = {e.question for e in (*found, *datasets.load("flickr30k", "train"))}
    assert len(asked) > 3 and asked <= set(published.DESCRIBE)


def test_a_copy_that_is_cut_is_named(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    (cut, *_) = (paths.hub() / "derek-thomas/ScienceQA").rglob("test-*.parquet")
    cut.write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ValueError, match="ScienceQA/data/test-.*is no readable Parquet, as one is that was cut or stands for a large file: copy it again"):
        list(datasets.load("scienceqa", "test"))
    (released,) = (paths.hub() / "vizwiz").rglob("train.json")
    released.write_text(released.read_text()[:100])
    with pytest.raises(ValueError, match="vizwiz/Annotations/train.json is no readable JSON, so that it is cut or broken: copy it again"):
        list(datasets.load("vizwiz", "train"))


def test_questions_without_a_picture_are_left_out(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    assert len(list(datasets.load("scienceqa", "test"))) == 8


def test_a_letter_that_names_another_choice_is_not_accepted(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"question": "Which allele?", "choices": ["B", "A"], "answer": 1, "subject": "biology"}
    (found,) = published._scienceqa([row])
    assert found.answers == ("A",)
    (found,) = published._scienceqa([{**row, "answer": 0, "choices": ["x", "y"]}])
    assert found.answers == ("A", "x")


def test_a_context_stands_before_its_question_and_tells_questions_apart() -> None:
    row = {"question": "Does this describe the weather or the climate?", "choices": ["weather", "climate"], "subject": "natural science"}
    two = [{**row, "answer": 0, "hint": "Chicago.\nIt rained on Monday."}, {**row, "answer": 1, "hint": "Marseille. Summers are dry."}]
    found = list(published._scienceqa([*two, {**row, "answer": 1, "hint": None}]))
    assert len({asked[0] for asked in found}) == 3, "one id each"
    listed = "Does this describe the weather or the climate? A.weather, B.climate"
    assert [asked.question for asked in found] == [f"Chicago.\nIt rained on Monday. {listed}", f"Marseille. Summers are dry. {listed}", listed]


def test_pope_and_repope_ask_the_same_questions_by_the_same_names(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    names = {name: {e.example_id.removeprefix(f"{name}-test-") for e in datasets.load(name, "test")} for name in ("pope", "repope")}
    assert len(names["pope"]) == 18 and names["repope"] < names["pope"]
    first = next(datasets.load("pope", "test"))
    assert (first.asset in ("dog", "apple"), first.template in ("random", "popular", "adversarial")) == (True, True)


SYNONYMS = "dog, puppy, hound\ndining table, table, desk\nperson, man, woman, baby\ncup\n"


def annotate(**changes: Any) -> Path:
    """COCO's annotations and CHAIR's list of synonyms, in the authors' formats, where the captions look for them; a file that is None stays away."""
    boxes = [(100, 67), (100, 18), (100, 18), (102, 1)]
    outlined = [
        {"segmentation": [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]], "area": 2.5, "iscrowd": 0, "image_id": image, "bbox": [1.0, 2.0, 3.0, 4.0], "category_id": category, "id": number}
        for number, (image, category) in enumerate(boxes)
    ]  # fmt: skip
    images = [{"license": 3, "file_name": f"COCO_val2014_{i:012}.jpg", "coco_url": "x", "height": 12, "width": 16, "date_captured": "x", "flickr_url": "x", "id": i} for i in range(100, 112)]
    kinds = [{"supercategory": "person", "id": 1, "name": "person"}, {"supercategory": "animal", "id": 18, "name": "dog"}, {"supercategory": "furniture", "id": 67, "name": "dining table"}]
    about = {"info": {"year": 2014}, "licenses": []}
    files = {
        "instances_val2014.json": json.dumps({**about, "images": images, "annotations": outlined, "categories": kinds}),
        "captions_val2014.json": json.dumps({**about, "images": images, "annotations": [{"image_id": 101, "id": 7, "caption": "A woman beside her puppy."}]}),
        "synonyms.txt": SYNONYMS,
    } | changes  # fmt: skip
    folder = paths.hub() / "coco"
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        if text is not None:
            (folder / name if name == "synonyms.txt" else folder / "annotations" / name).write_text(text)
    return folder


def test_coco_pictures_hold_what_is_outlined_and_what_references_name(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    annotate()
    held = {e.picture_id.removeprefix("coco_captions-test-"): e.objects for e in datasets.load("coco_captions", "test")}
    assert {name: things for name, things in held.items() if things} == {"100": ("dining table", "dog"), "101": ("dog", "person"), "102": ("person",)}
    monkeypatch.setattr(published, "_coco", lambda rows: (published._caption(["A hound and a cup."], str(rows[0]["cocoid"])),))
    monkeypatch.setitem(published.SETS, "coco_captions", replace(published.SETS["coco_captions"], pose=published._coco))
    held = {e.picture_id.removeprefix("coco_captions-test-"): e.objects for e in datasets.load("coco_captions", "test")}
    assert held["100"] == ("cup", "dining table", "dog") and held["105"] == ("cup", "dog")
    assert all(not e.objects for e in datasets.load("coco_captions", "train")), "what is trained on does not change with the annotations"


def test_without_annotations_it_is_said_what_is_not_counted_and_why(files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    small(monkeypatch)
    assert not any(e.objects for e in datasets.load("coco_captions", "test")) and datasets.vocabulary("coco_captions") == ()
    said = capsys.readouterr().out
    for file in ("annotations/instances_val2014.json", "synonyms.txt"):
        assert f"there is no {files / 'coco' / file}" in said
    assert list(datasets.load("coco_captions", "train")) and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("changes", "kind", "sentence"),
    [
        ({"synonyms.txt": None}, FileNotFoundError, "invent cannot be told: there is no .*coco/synonyms.txt, which is the list of synonyms of CHAIR's authors"),
        ({"instances_val2014.json": None}, FileNotFoundError, "there is no .*coco/annotations/instances_val2014.json, which is COCO's annotations of 2014"),
        ({"instances_val2014.json": "{"}, ValueError, "instances_val2014.json is not whole"),
        ({"instances_val2014.json": '{"images": [], "annotations": []}'}, ValueError, "instances_val2014.json holds no categories: it is not one of COCO's"),
        ({"captions_val2014.json": "[]"}, ValueError, "captions_val2014.json holds no annotations"),
        ({"instances_val2014.json": '{"images": [{"id": 5}], "annotations": [], "categories": []}'}, ValueError, "picture 100 of coco_captions is not in .*: that file is not of COCO's validation part"),
        ({"synonyms.txt": "dog, puppy\nperson, puppy"}, ValueError, "'puppy' stands for 'dog' and for 'person'"),
        ({"synonyms.txt": "dog, puppy"}, ValueError, "category 'person' is named by no line of the list of synonyms"),
    ],
)  # fmt: skip
def test_annotations_that_are_not_all_there_or_not_whole_are_named(files: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], kind: type[Exception], sentence: str) -> None:
    small(monkeypatch)
    annotate(**changes)
    with pytest.raises(kind, match=sentence):
        list(datasets.load("coco_captions", "test"))


def test_captions_of_coco_are_judged_by_what_they_invent_and_again_without_the_files(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    annotate()
    records.write_examples("coco_captions", {split: datasets.load("coco_captions", split) for split in ("train", "test")})
    run = Run(dataset="coco_captions", method="none", test_size=None)
    stage = records.open_stage(run, "evaluate", inputs=records.inputs(run, "evaluate"))
    examples = records.read_examples("coco_captions", "test")
    said = {"100": "A puppy under a table with a cup", "102": "A man"}
    records.predictions(examples, [said.get(e.picture_id.rpartition("-")[2], "Grass.") for e in examples]).to_parquet(stage.folder / "predictions.parquet")
    stage.finish(stamp={})
    collected.collect("study", [run], scorer=metrics, stages=("evaluate",))
    results = collected.read_results("study")
    scores = results.scores.set_index("metric")["value"]
    assert tuple(scores.index) == (*metrics.SHOWN["cider"], *metrics.CAPTIONED)
    assert scores[["chair_s", "chair_i", "object_recall", "caption_words"]].tolist() == pytest.approx([100 / 12, 25, 60, (8 + 2 + 10) / 12])
    assert results.vocabulary("coco_captions")[:2] == ("dog, puppy, hound, baby dog, adult dog", "dining table, table, desk")
    assert set(results.predictions["metric"]) == {"cider"}, "captions are judged as before; what they invent stands beside it"
    shutil.rmtree(files)
    shutil.rmtree(paths.prepared())
    again = collected.rescore("study", scorer=metrics)
    assert len(again.changes) == 0 and again.scores == len(scores)
    assert collected.rescore("study", scorer=metrics, metric="chair_s").scores == len(scores)
    results = collected.read_results("study")
    (row,) = estimates.invented(results.predictions, vocabularies=results.vocabularies).to_dict("records")
    assert (row["tested_on"], row["n"], row["steps"]) == ("coco_captions", 12, 0)
    assert [row[name] for name in ("mean", "chair_i", "object_recall", "words", "silent")] == pytest.approx([100 / 12, 25, 60, 20 / 12, 1000 / 12])
    assert estimates.invented(results.predictions).empty, "without the list nothing is read"
    table = tables.invented_table(pd.DataFrame([row]))
    assert table.rows[0][0] == tables.Cell("–", "COCO captions")


# ---------------------------------------------------------------- what is wrong


def test_what_is_neither_here_nor_on_the_hub_says_where_to_put_it(work: Path, cache: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"data/train-\*.parquet of lmms-lab/textvqa at revision 9c0699[0-9a-f]{34} is neither in .*hub/lmms-lab/textvqa nor to be had"):
        next(datasets.load("textvqa", "train"))
    with pytest.raises(FileNotFoundError, match="unpack the authors' release so that it is there"):
        next(datasets.load("iconqa_txt", "train"))


def test_what_is_read_at_main_keeps_the_commit_that_it_was(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets as hub
    import huggingface_hub

    small(monkeypatch)
    asked: list[Any] = []
    real, copy = hub.load_dataset, paths.hub() / "elsewhere"

    def info(self: Any, repository: str, *, revision: str) -> Any:
        asked.append((repository, revision))
        return SimpleNamespace(sha=f"{len(asked)}" * 40)

    def load(kind: str, *, data_files: Any, **more: Any) -> Any:
        asked.append(data_files)
        return real(kind, data_files=[str(file) for file in copy.rglob("repope-*.parquet")] if isinstance(data_files, str) else data_files, **more)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    monkeypatch.setattr(hub, "load_dataset", load)
    published._commit.cache_clear()
    monkeypatch.setattr(published, "READ", {})
    assert datasets.revisions("repope") == {}, "what was not read is not asked for"
    records.write_examples("repope", {"test": datasets.load("repope", "test")})
    assert records.read_revisions("repope") == {"MM-Hallu/RePOPE": None}, "a copy here has no commit; its digest tells it"
    shutil.move(paths.hub() / "MM-Hallu", copy)
    asked.clear()
    records.write_examples("repope", {"test": datasets.load("repope", "test")})
    assert asked == [("MM-Hallu/RePOPE", "main"), f"hf://datasets/MM-Hallu/RePOPE@{'1' * 40}/repope-*.parquet"], "what is read is what is kept: asked once"
    assert records.read_revisions("repope") == {"MM-Hallu/RePOPE": "1" * 40} and records.is_prepared("repope")
    published._commit.cache_clear()
    pinned = datasets.card("textvqa").source.partition("@")[2]
    assert published._commit("lmms-lab/textvqa", pinned) == pinned and len(asked) == 2, "a commit is not asked for"
    assert datasets.revisions("scenes") == datasets.revisions("iconqa_txt") == datasets.revisions("textvqa") == {}


def test_fewer_than_the_card_says_is_refused(files: Path) -> None:
    with pytest.raises(ValueError, match="5000 examples asked of vqav2/test, which has 12: its files are not those that its card speaks of"):
        next(datasets.load("vqav2", "test"))


def test_a_broken_picture_is_named(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    file = files / "iconqa/iconqa_data/iconqa/test/fill_in_blank/103/image.png"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match="the picture of iconqa_blank-test-103-0 does not decode: it is cut short"):
        list(datasets.load("iconqa_blank", "test"))


def test_a_picture_of_a_release_that_climbs_is_refused(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    file = files / "vizwiz/Annotations/train.json"
    listed = json.loads(file.read_text())
    listed[0]["image"] = "../../../secret.png"
    file.write_text(json.dumps(listed))
    with pytest.raises(ValueError, match="'../../../secret.png' leads out of the folder"):
        list(datasets.load("vizwiz", "train")), list(datasets.load("vizwiz", "validation"))


def test_prepared_examples_depend_on_the_local_copy(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small(monkeypatch)
    records.write_examples("okvqa", {"test": datasets.load("okvqa", "test")})
    assert records.is_prepared("okvqa")
    shutil.rmtree(files / "lmms-lab/OK-VQA")
    assert not records.is_prepared("okvqa")


def test_every_source_is_pinned_or_says_main() -> None:
    for name in WRITERS:
        for source in datasets.card(name).source.split():
            repository, _, revision = source.partition("@")
            assert (len(revision) == 40 or revision == "main") == ("/" in repository), source


def test_what_llava_saw_is_seen() -> None:
    for name in ("llava-1.5-7b", "llava-1.5-13b", "sharegpt4v-7b"):
        assert set(models.card(name).seen) == {"vqav2", "gqa", "okvqa", "ocrvqa"}


@pytest.mark.parametrize(("name", "probe"), [("okvqa", "presence"), ("pope", "pope"), ("flickr30k", "presence")])
def test_notebook_01_prepares_it(files: Path, name: str, probe: str, prepare_tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells run on a set that has no pack, on one that only tests, and on one of captions."""
    import nbformat

    small(monkeypatch)
    prepare_tiny(records.PROBED)
    names: dict[str, Any] = {"display": lambda shown: None}
    for cell in nbformat.read(paths.notebooks() / "01_prepare_data.ipynb", as_version=4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, cell.id, "exec"), names)
        if "parameters" in cell.metadata.get("tags", []):
            names |= {"dataset": name, "method": "none", "probe": probe}
    assert records.is_prepared(name) and set(names["examples"]) == set(datasets.card(name).sizes)
