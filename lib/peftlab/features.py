"""What a model is given of pictures and prompts: the frozen encoder's features, computed once and cached, or what the processor makes."""

import fcntl
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from peftlab import paths
from peftlab.models import Loaded

BATCH = 4  # pictures encoded at once: so few that what a block holds stays in the processor's cache (1.9 times as fast as 32 at 160 pixels, 2.7 at 256)
HELD = 2 * 2**30  # bytes of a set's pictures as a processor makes them, at most; one for LLaVA-1.5 takes 1.4 MB


TOKENS = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids")  # rows of a value a token; the rest is of pictures


@dataclass(frozen=True)
class Features:
    """A set of pictures as a model takes them in: by content from a table of encoder features, else through the processor.

    A family has a table where its vision tower has an `encode` (the pocket family: always the same number of tokens a picture). Of the others
    what the processor made of a picture is held, up to `HELD` bytes: a picture is needed for its number of tokens first, and in every epoch.
    """

    loaded: Loaded
    table: torch.Tensor | None  # (pictures, cells, width), bf16
    rows: dict[str, int]
    names: tuple[str, ...]  # the content of each picture that was given, in that order
    made: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)  # by picture, where there is no table

    def tokens(self, image: Image.Image, question: str, *, before: Sequence[tuple[str, str]] = ()) -> dict[str, list[int]]:
        """``input_ids`` of a conversation up to where the answer to `question` begins, and the family's other values a token."""
        if self.table is not None:
            return {"input_ids": self.loaded.prompt(question, image_tokens=self.loaded.model.config.image_seq_length, before=before)}
        made = self.loaded.inputs(image, question, before=before)
        self._hold(picture_digest(image), made)
        return {name: made[name][0].tolist() for name in TOKENS if name in made and name != "attention_mask"}

    def batch(self, rows: Sequence[dict[str, list[int]]], images: Sequence[Image.Image], *, left: bool = False) -> dict[str, torch.Tensor]:
        """What the model is called with: `rows` padded to the longest, right or `left`, their mask, and the pictures, one a row.

        KeyError where a picture was not encoded.
        """
        return {**self.words(rows, left=left), **self._pixels(images)}

    def words(self, rows: Sequence[dict[str, list[int]]], *, left: bool = False) -> dict[str, torch.Tensor]:
        """`rows` padded to the longest, right or `left`, and their mask."""
        longest = max(len(row["input_ids"]) for row in rows)
        made = {"attention_mask": torch.zeros(len(rows), longest, dtype=torch.int64)}
        for number, row in enumerate(rows):
            length = len(row["input_ids"])
            place = slice(longest - length, None) if left else slice(length)
            made["attention_mask"][number, place] = 1
            for name, values in row.items():
                made.setdefault(name, torch.full((len(rows), longest), self.loaded.pad if name == "input_ids" else 0))
                made[name][number, place] = torch.tensor(values)
        return made

    def _pixels(self, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        if self.table is not None:
            return {"pixel_values": self.table[[self.rows[picture_digest(image)] for image in images]]}
        made = [self.made.get(digest := picture_digest(image)) or self._hold(digest, self.loaded.inputs(image, "")) for image in images]
        return {name: _stack([one[name] for one in made]) for name in made[0]}

    def _hold(self, digest: str, made: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What is of the picture among what the processor made, kept for the next time while there is room."""
        pixels = {name: tensor for name, tensor in made.items() if name not in TOKENS}
        size = sum(tensor.nbytes for tensor in pixels.values())
        if size * (1 + len(self.made)) <= HELD:  # as though all were of this size
            self.made.setdefault(digest, pixels)
        return pixels


def _stack(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Concatenate along the first dimension, the others padded with zeros to the widest: pictures may differ in their number of tiles."""
    wide = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
    padded = [F.pad(part, [n for w, size in zip(wide[::-1], part.shape[:0:-1], strict=True) for n in (0, w - size)]) for part in parts]
    return torch.cat(padded)


def picture_digest(image: Image.Image) -> str:
    """Content of an RGB picture: size and pixels, as sha256."""
    return hashlib.sha256(repr(image.size).encode() + image.convert("RGB").tobytes()).hexdigest()


def encode(loaded: Loaded, images: Sequence[Image.Image]) -> Features:
    """Features of all different pictures among `images`, each computed once on this machine; no table where the family keeps none.

    The cache holds a folder per encoder (its weights and preprocessing) and in it files of pictures by content, so it needs no invalidation.
    Of several processes one computes what is missing and the others wait for it; a file is written under a temporary name and renamed.
    """
    given = tuple(picture_digest(image) for image in images)
    unique = dict(zip(given, images, strict=True))
    names = sorted(unique)
    rows = {name: row for row, name in enumerate(names)}
    tower = loaded.model.get_submodule(loaded.towers.vision)
    if not hasattr(tower, "encode"):
        return Features(loaded, None, rows, given)
    folder = paths.cache() / "features" / _encoder_digest(tower, loaded.processor)[:32]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # who comes second finds the files
        kept = _kept(folder)
        missing = [name for name in names if name not in kept]
        if missing:
            kept |= _keep(folder, missing, _computed(loaded, tower, [unique[name] for name in missing]))
    return Features(loaded, _gathered(names, kept), rows, given)


def _kept(folder: Path) -> dict[str, tuple[Path, int]]:
    """Where each picture's features are: file and row."""
    found: dict[str, tuple[Path, int]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as stored:
            found |= {name: (file, row) for row, name in enumerate(json.loads(stored.metadata()["pictures"]))}
    return found


def _keep(folder: Path, names: Sequence[str], table: torch.Tensor) -> dict[str, tuple[Path, int]]:
    file = folder / f"{hashlib.sha256(''.join(names).encode()).hexdigest()[:32]}.safetensors"
    temporary = file.with_suffix(f".{os.getpid()}")
    save_file({"features": table}, temporary, metadata={"pictures": json.dumps(list(names))})
    temporary.rename(file)
    return {name: (file, row) for row, name in enumerate(names)}


def _gathered(names: Sequence[str], kept: dict[str, tuple[Path, int]]) -> torch.Tensor:
    """(len(names), cells, width) in bf16, row by row from the files."""
    by_file: dict[Path, list[tuple[int, int]]] = {}
    for place, name in enumerate(names):
        file, row = kept[name]
        by_file.setdefault(file, []).append((place, row))
    parts: list[torch.Tensor] = [torch.empty(0)] * len(names)
    for file, places in by_file.items():
        with safe_open(file, "pt") as stored:
            rows = stored.get_slice("features")
            for place, row in places:
                parts[place] = rows[row]
    return torch.stack(parts)


def _computed(loaded: Loaded, tower: torch.nn.Module, images: Sequence[Image.Image]) -> torch.Tensor:
    """(len(images), cells, width) in bf16, by the tower.

    Every batch is full, the last one with its last picture again: what a picture's features are, to the bit, must not depend on how many it
    is computed with.
    """
    device, parts = next(tower.parameters()).device, []
    for start in range(0, len(images), BATCH):
        part = list(images[start : start + BATCH])
        pixels = loaded.processor.image_processor(part + part[-1:] * (BATCH - len(part)), return_tensors="pt")["pixel_values"]
        parts.append(tower.encode(pixels.to(device)).cpu()[: len(part)])
    return torch.cat(parts)


def _encoder_digest(tower: torch.nn.Module, processor: Any) -> str:
    digest = hashlib.sha256(processor.image_processor.to_json_string().encode())
    for name, tensor in tower.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
