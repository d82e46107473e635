"""The cache of encoder features: made once by whoever comes first, and the same as what is computed."""

import threading
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from peftlab import features
from peftlab.models import pocket

PICTURES = [Image.new("RGB", (160, 160), colour) for colour in ("red", "grey", "blue", "red")]


def test_pictures_are_encoded_once_however_many_ask(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, calls, found = pocket.ready(pocket.tiny(seed=0), precision="fp32", quantisation="none"), [], []
    encode = pocket.Lite0Tower.encode

    def slow(tower: pocket.Lite0Tower, pixels: torch.Tensor) -> torch.Tensor:
        calls.append(len(pixels))
        time.sleep(0.2)
        return encode(tower, pixels)

    monkeypatch.setattr(pocket.Lite0Tower, "encode", slow)
    askers = [threading.Thread(target=lambda: found.append(features.encode(loaded, PICTURES))) for _ in range(3)]
    [asker.start() for asker in askers]
    [asker.join() for asker in askers]
    assert calls == [3], "a picture was encoded twice"
    assert len(found) == 3 and all(torch.equal(one.table, found[0].table) for one in found)
    assert not [f for f in (cache / "features").iterdir() if f.suffix not in (".safetensors", ".lock")]


def test_cached_features_are_what_the_tower_says(cache: Path) -> None:
    loaded = pocket.ready(pocket.tiny(seed=0), precision="fp32", quantisation="none")
    fresh, again = features.encode(loaded, PICTURES), features.encode(loaded, PICTURES)
    pixels = loaded.processor.image_processor(PICTURES[:1], return_tensors="pt")["pixel_values"]
    row = fresh.rows[features.picture_digest(PICTURES[0])]
    assert torch.equal(fresh.table, again.table) and torch.equal(fresh.table[row], loaded.model.model.vision_tower.encode(pixels)[0])
