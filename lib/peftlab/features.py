"""What the frozen vision encoder says of a picture: computed once, cached."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from peftlab import paths
from peftlab.models import Loaded

BATCH = 32  # pictures encoded at once


@dataclass(frozen=True)
class Features:
    """Encoder features of a set of pictures, found by content."""

    table: torch.Tensor  # (pictures, image tokens, width), bf16
    rows: dict[str, int]

    @property
    def image_tokens(self) -> int:
        return self.table.shape[1]

    def of(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """(len(images), image tokens, width); KeyError where a picture was not encoded."""
        return self.table[[self.rows[picture_digest(image)] for image in images]]


def picture_digest(image: Image.Image) -> str:
    """Content of an RGB picture: size and pixels, as sha256."""
    return hashlib.sha256(repr(image.size).encode() + image.convert("RGB").tobytes()).hexdigest()


def encode(loaded: Loaded, images: Sequence[Image.Image]) -> Features:
    """Features of all different pictures among `images`, from the cache where this set was encoded before.

    The cache's key is the encoder's weights, its preprocessing and the pictures' content, so it needs no invalidation; a file
    is written under a temporary name and renamed, so several processes may share it.
    """
    unique = {picture_digest(image): image for image in images}
    names = sorted(unique)
    tower = loaded.model.get_submodule(loaded.towers.vision)
    key = hashlib.sha256("".join([_encoder_digest(tower, loaded.processor), *names]).encode()).hexdigest()
    file = paths.cache() / "features" / f"{key[:32]}.safetensors"
    if file.exists():
        table = load_file(file)["features"]
    else:
        device = next(tower.parameters()).device
        parts = []
        for start in range(0, len(names), BATCH):
            batch = [unique[name] for name in names[start : start + BATCH]]
            pixels = loaded.processor.image_processor(batch, return_tensors="pt")["pixel_values"]
            parts.append(tower.encode(pixels.to(device)).cpu())
        table = torch.cat(parts)
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}")
        save_file({"features": table}, temporary)
        temporary.rename(file)
    return Features(table, {name: row for row, name in enumerate(names)})


def _encoder_digest(tower: torch.nn.Module, processor: Any) -> str:
    digest = hashlib.sha256(processor.image_processor.to_json_string().encode())
    for name, tensor in tower.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
