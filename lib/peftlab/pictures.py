"""The pack's table and the drawing of pictures from it."""

from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter, ImageFont

from peftlab import paths

SIDE = 160  # of every picture, in pixels


@cache
def table(name: str) -> pd.DataFrame:
    """A table of the pack (``pack``, ``regions``, ``facts``, ``films``, ``fonts``), empty cells as ""; FileNotFoundError where the pack lacks it."""
    return pd.read_csv(paths.pack() / f"{name}.csv", dtype=str, keep_default_na=False)


def things(style: str, split: str | None = None) -> pd.DataFrame:
    """The pack's assets of a style, in the table's order; of one split if given. ValueError where there are none."""
    rows = table("pack")
    rows = rows[(rows["style"] == style) & ((rows["split"] == split) if split else True)]
    if rows.empty:
        raise ValueError(f"the pack has no {style} of split {split!r}; see {paths.pack() / 'pack.csv'}")
    return rows.reset_index(drop=True)


@lru_cache(maxsize=2048)
def cutout(file: str) -> Image.Image:
    """An asset's picture as RGBA, trimmed to what is opaque."""
    picture = Image.open(paths.pack() / file).convert("RGBA")
    return picture.crop(picture.getchannel("A").point(lambda v: 255 * (v > 16)).getbbox())


def numbers(file: str) -> np.ndarray:
    """The colour numbers of a paletted picture, (height, width)."""
    return np.asarray(Image.open(paths.pack() / file)).astype(int)


@lru_cache(maxsize=512)
def font(file: str, size: int) -> ImageFont.FreeTypeFont:
    """A font of the pack at a size in pixels."""
    return ImageFont.truetype(str(paths.pack() / file), size)


def paste(canvas: Image.Image, file: str, centre: tuple[float, float], size: float) -> tuple[int, int, int, int]:
    """Draw an asset so that its longer side is `size` pixels, inside the canvas; returns its box (left, top, right, bottom)."""
    picture = cutout(file)
    scale = size / max(picture.size)
    width, height = (max(1, round(v * scale)) for v in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    left = int(min(max(centre[0] - width / 2, 0), max(canvas.width - width, 0)))
    top = int(min(max(centre[1] - height / 2, 0), max(canvas.height - height, 0)))
    canvas.paste(picture, (left, top), picture)
    return left, top, left + width, top + height


def colour(rng: np.random.Generator, low: int = 150, high: int = 250) -> tuple[int, int, int]:
    """A random colour with each channel in [low, high)."""
    return tuple(int(v) for v in rng.integers(low, high, 3))


def background(rng: np.random.Generator, split: str, photos: float = 0.3) -> Image.Image:
    """A light (160, 160) RGB background: plain, gradient, texture, or (a share of `photos`) a blurred crop of a photograph of the split."""
    if rng.random() < photos:
        return photograph(rng, split)
    return PATTERNS[list(PATTERNS)[rng.integers(len(PATTERNS))]](rng)


def _plain(rng: np.random.Generator) -> Image.Image:
    return Image.new("RGB", (SIDE, SIDE), colour(rng))


def _gradient(rng: np.random.Generator) -> Image.Image:
    first, second = np.array(colour(rng)), np.array(colour(rng))
    ramp = np.linspace(0, 1, SIDE)[:, None, None] * (second - first) + first
    field = np.broadcast_to(ramp, (SIDE, SIDE, 3)).astype(np.uint8)  # (row, column, channel)
    return Image.fromarray(np.ascontiguousarray(field.transpose(1, 0, 2) if rng.random() < 0.5 else field))


def _pattern(rng: np.random.Generator, mask: np.ndarray) -> Image.Image:
    first = np.array(colour(rng, 165))
    second = np.clip(first + rng.integers(-28, 29, 3), 0, 255)
    return Image.fromarray(np.where(mask[..., None], first, second).astype(np.uint8))


def _stripes(rng: np.random.Generator) -> Image.Image:
    y, x = np.mgrid[:SIDE, :SIDE]
    along = (x, y, x + y, x - y)[rng.integers(4)]
    return _pattern(rng, along // int(rng.integers(6, 22)) % 2 == 0)


def _checks(rng: np.random.Generator) -> Image.Image:
    y, x = np.mgrid[:SIDE, :SIDE]
    step = int(rng.integers(8, 30))
    return _pattern(rng, (x // step + y // step) % 2 == 0)


def _dots(rng: np.random.Generator) -> Image.Image:
    y, x = np.mgrid[:SIDE, :SIDE]
    step = int(rng.integers(14, 30))
    return _pattern(rng, (x % step - step / 2) ** 2 + (y % step - step / 2) ** 2 > (step / 4) ** 2)


def _noise(rng: np.random.Generator) -> Image.Image:
    grain = rng.integers(-24, 25, (SIDE // 4, SIDE // 4, 3)) + np.array(colour(rng, 170, 235))
    return Image.fromarray(grain.astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def photograph(rng: np.random.Generator, split: str) -> Image.Image:
    """A pale blurred crop of a photograph of the split, (160, 160) RGB."""
    photos = things("photo", split)
    picture = opaque(photos["file"][int(rng.integers(len(photos)))])
    size = int(min(picture.size) * rng.uniform(0.5, 1.0))
    left, top = (int(rng.integers(0, v - size + 1)) for v in picture.size)
    crop = picture.crop((left, top, left + size, top + size)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return Image.blend(crop.filter(ImageFilter.GaussianBlur(5)), Image.new("RGB", crop.size, "white"), rng.uniform(0.3, 0.6))


PATTERNS: dict[str, Callable[[np.random.Generator], Image.Image]] = {  # light (160, 160) RGB backgrounds by name, in the order they are drawn from
    "plain": _plain,
    "gradient": _gradient,
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "noise": _noise,
}


@lru_cache(maxsize=512)
def opaque(file: str) -> Image.Image:
    """An asset's picture as RGB, on white where it is transparent."""
    picture = cutout(file)
    field = Image.new("RGBA", picture.size, "white")
    field.alpha_composite(picture)
    return field.convert("RGB")
