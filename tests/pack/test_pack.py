"""The picture pack: its tables agree with its files, its licences are there, and its splits share nothing."""

import csv
import hashlib
import re
from collections import Counter, defaultdict
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageFont, ImageOps

PACK = Path(__file__).resolve().parents[2] / "data" / "pack"
MEGABYTE = 1_000_000
NEAR = 6  # bits of 64, in both hashes; the builder joins at 8 before compression, which moves a bit or two
STYLES = {"stamp", "photo", "openmoji", "fluent", "flag", "map"}
SPLITS = {"train", "validation", "test"}
COLOURS = {"", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey"}

Rows = list[dict[str, str]]


def read(name: str) -> Rows:
    """The rows of a table of the pack."""
    with (PACK / name).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def pack() -> Rows:
    return read("pack.csv")


def straddling(rows: Rows, key: str) -> set[str]:
    """The values of `key` that occur in more than one split."""
    splits = defaultdict(set)
    for row in rows:
        splits[row[key]].add(row["split"])
    return {value for value, found in splits.items() if len(found) > 1}


def bits(picture: Image.Image) -> np.ndarray:
    """Perceptual and difference hash of the picture on white, of it and of its mirror image: (2, 128) booleans."""
    rgba = picture.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return np.array([[*imagehash.phash(side).hash.ravel(), *imagehash.dhash(side).hash.ravel()] for side in (flat, ImageOps.mirror(flat))])


def near_across_splits(pictures: list[Image.Image], splits: list[str]) -> list[tuple[int, int]]:
    """Index pairs of pictures that look alike, mirrored or not, and are in different splits."""
    hashed = np.array([bits(picture) for picture in pictures])
    found = []
    for i, own in enumerate(hashed[:, 0]):
        differ = hashed[i + 1 :] != own
        close = (differ[..., :64].sum(-1) <= NEAR) & (differ[..., 64:].sum(-1) <= NEAR)
        found += [(i, i + 1 + int(j)) for j in np.flatnonzero(close.any(1)) if splits[i] != splits[i + 1 + j]]
    return found


def test_files_are_the_table(pack: Rows) -> None:
    assert {row["file"] for row in pack} == {f"pictures/{path.name}" for path in (PACK / "pictures").iterdir()}
    assert {row["file"] for row in read("fonts.csv")} == {f"fonts/{path.name}" for path in (PACK / "fonts").iterdir()}


def test_each_file_is_what_the_table_says(pack: Rows) -> None:
    longest = {"stamp": 128, "photo": 160, "openmoji": 64, "fluent": 64, "flag": 128, "map": 160}
    for row in pack:
        path = PACK / row["file"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"], row["id"]
        with Image.open(path) as picture:
            assert picture.size == (int(row["width"]), int(row["height"])), row["id"]
            assert max(picture.size) <= longest[row["style"]], row["id"]
            assert (picture.mode == "RGBA") == (row["style"] in ("stamp", "openmoji", "fluent")), row["id"]
            assert (picture.mode == "P") == (row["style"] == "map"), row["id"]


def test_size() -> None:
    assert sum(path.stat().st_size for path in PACK.rglob("*") if path.is_file() and "__pycache__" not in path.parts) < 9 * MEGABYTE
    assert sum(path.stat().st_size for path in (PACK / "fonts").iterdir()) < MEGABYTE


def test_columns(pack: Rows) -> None:
    assert len({row["id"] for row in pack}) == len(pack)
    for row in pack:
        assert re.fullmatch(r"[a-z0-9-]+", row["id"]) and row["style"] in STYLES and row["split"] in SPLITS and row["colour"] in COLOURS, row
        assert row["source"] and row["source_path"] and row["author"] and row["licence"] and row["description"], row
        if row["style"] in ("stamp", "openmoji", "fluent"):
            assert re.fullmatch(r"[a-z-]+( [a-z-]+)?", row["name"]), row
        if row["style"] == "flag":
            assert row["kind"] == "flag" and row["split"] == "train", row


def test_a_name_has_one_kind(pack: Rows) -> None:
    kinds = defaultdict(set)
    for row in pack:
        if row["style"] not in ("flag", "map"):
            kinds[row["name"]].add(row["kind"])
    assert {name: found for name, found in kinds.items() if len(found) > 1} == {"sun": {"celestial body", "weather"}, "paintbrush": {"tool", "stationery"}}


def test_each_licence_has_its_text(pack: Rows) -> None:
    for licence in {row["licence"] for row in pack}:
        assert (PACK / "licences" / f"{licence}.txt").stat().st_size > 200, licence
    for row in read("fonts.csv"):
        assert "SIL Open Font License" in (PACK / "licences" / f"{row['licence']}-{Path(row['file']).stem}.txt").read_text(encoding="utf-8")
    linked = {row["file"] for row in read("attribution.csv") if row["origin"].startswith("http")}
    assert {row["file"] for row in pack if row["licence"].startswith("CC-BY") and row["style"] == "photo"} <= linked


def test_groups_stay_in_a_split(pack: Rows) -> None:
    assert not straddling(pack, "group")


def test_a_straddling_group_is_found() -> None:
    assert straddling([{"group": "a", "split": "train"}, {"group": "a", "split": "test"}, {"group": "b", "split": "test"}], "group") == {"a"}


def test_kinds_of_stamps_are_taught_and_tested(pack: Rows) -> None:
    splits = defaultdict(set)
    for row in pack:
        if row["style"] == "stamp":
            splits[row["kind"]].add(row["split"])
    assert len(splits) >= 20
    assert all({"train", "test"} <= found for found in splits.values()), splits


def test_icons_come_in_both_styles_and_split_by_concept(pack: Rows) -> None:
    icons = [row for row in pack if row["style"] in ("openmoji", "fluent")]
    assert not straddling(icons, "name")
    assert Counter(row["name"] for row in icons).most_common()[-1][1] == 2
    for style in ("openmoji", "fluent"):
        sizes = Counter(row["kind"] for row in icons if row["style"] == style)
        assert len(sizes) >= 10 and min(sizes.values()) >= 11, sizes


def test_shares_of_the_splits(pack: Rows) -> None:
    for style in STYLES - {"flag"}:
        counts = Counter(row["split"] for row in pack if row["style"] == style)
        assert 0.55 < counts["train"] / counts.total() < 0.68 and 0.25 < counts["test"] / counts.total() < 0.36, (style, counts)


def test_no_near_duplicates_across_splits(pack: Rows) -> None:
    for styles in ({"stamp", "photo"}, {"openmoji"}, {"fluent"}, {"map"}):
        rows = [row for row in pack if row["style"] in styles]
        pairs = near_across_splits([Image.open(PACK / row["file"]) for row in rows], [row["split"] for row in rows])
        assert not pairs, [(rows[i]["id"], rows[j]["id"]) for i, j in pairs]


def test_a_near_duplicate_is_found(pack: Rows) -> None:
    first = Image.open(PACK / pack[0]["file"]).convert("RGBA")
    other = Image.open(PACK / pack[1]["file"])
    mirrored = ImageOps.mirror(first).resize((first.width * 2, first.height * 2))
    assert near_across_splits([first, other, mirrored], ["train", "train", "test"]) == [(0, 2)]
    assert near_across_splits([first, other, mirrored], ["train", "train", "train"]) == []


def test_regions_are_the_colours_of_the_maps(pack: Rows) -> None:
    regions, maps = defaultdict(dict), {row["id"]: row["file"] for row in pack if row["style"] == "map"}
    for row in read("regions.csv"):
        assert row["name"].isascii() and row["name"] == row["name"].strip() and re.fullmatch("#[0-9a-f]{6}", row["colour"]), row
        regions[row["map"]][int(row["number"])] = row
    assert set(regions) == set(maps) and len(maps) <= 60
    for name, file in maps.items():
        picture = Image.open(PACK / file)
        shown = {int(number) for number in np.unique(np.asarray(picture))}
        assert sorted(regions[name]) == list(range(1, len(regions[name]) + 1)) and shown <= {0, *regions[name]}, name
        assert len(shown) >= 6 and len(shown) - 1 >= 0.85 * len(regions[name]), name
        palette = np.array(picture.getpalette()).reshape(-1, 3)
        assert all("#" + bytes(palette[n].tolist()).hex() == regions[name][n]["colour"] for n in shown - {0}), name


def test_facts_are_of_pictures(pack: Rows) -> None:
    facts = read("facts.csv")
    assert {row["name"] for row in facts} <= {row["name"] for row in pack}
    assert len({(row["name"], row["attribute"]) for row in facts}) == len(facts)
    countries = {row["name"] for row in pack if row["style"] == "flag"}
    assert countries <= {row["name"] for row in facts}
    values = defaultdict(Counter)
    for row in facts:
        if row["name"] not in countries:
            values[row["attribute"]][row["value"]] += 1
    for attribute, counts in values.items():
        assert counts.total() >= 12 and 2 <= len(counts) <= 8 and max(counts.values()) <= 0.6 * counts.total(), (attribute, counts)
    stamps = {row["name"] for row in pack if row["style"] == "stamp"}
    assert sum(count >= 2 for count in Counter(row["name"] for row in facts if row["name"] in stamps).values()) >= 120


def test_neighbours_are_mutual() -> None:
    neighbours = {row["name"]: set(row["value"].split(";")) - {"none"} for row in read("facts.csv") if row["attribute"] == "neighbours"}
    for name, others in neighbours.items():
        assert all(name in neighbours[other] for other in others if other in neighbours), name


def test_films() -> None:
    films = read("films.csv")
    assert len({row["title"].lower() for row in films}) == len(films) >= 2000
    for row in films:
        assert re.fullmatch(r"[A-Z][A-Za-z]*( [A-Za-z]+){0,3}", row["title"]) and len(row["title"]) <= 24, row
        assert row["year"].isdigit() and row["director"].isascii() and row["split"] in SPLITS, row
    assert 8 <= len({row["genre"] for row in films}) <= 12


def test_fonts_draw_the_films() -> None:
    fonts = read("fonts.csv")
    assert Counter(row["split"] for row in fonts) == {"train": 8, "test": 2}
    letters = {letter for row in read("films.csv") for letter in row["title"] + row["genre"] + row["director"] + row["year"]}
    for row in fonts:
        font = ImageFont.truetype(PACK / row["file"], 24)
        missing = font.getmask("\N{SNOWMAN}")
        assert all(bytes(font.getmask(letter)) != bytes(missing) for letter in letters - {" "}), row["family"]


def test_the_readme_counts(pack: Rows) -> None:
    said = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", (PACK / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {row[0] for row in said} == STYLES
    for style, *numbers in said:
        rows = [row for row in pack if row["style"] == style]
        splits = Counter(row["split"] for row in rows)
        counted = [len(rows), len({row["name"] for row in rows}), len({row["kind"] for row in rows}), *(splits[split] for split in ("train", "validation", "test"))]
        assert [int(number) for number in numbers] == counted, style


def test_nothing_of_the_builders_machine() -> None:
    for path in [*PACK.glob("*.py"), *PACK.glob("*.md"), *PACK.glob("*.csv"), *PACK.glob("choices/*.csv")]:
        assert not re.search(r"/(home|work|root|tmp)/|pypi\.org|npmjs|deb\.debian", path.read_text(encoding="utf-8")), path.name
