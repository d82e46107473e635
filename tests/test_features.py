"""The cache of encoder features: made once by whoever comes first, and the same as what is computed."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from peftlab import features, models
from peftlab.models import pocket
from peftlab.run import Run

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
    assert calls == [features.BATCH], "a picture was encoded twice"
    assert len(found) == 3 and all(torch.equal(one.table, found[0].table) for one in found)
    assert {f.name for f in (cache / "features").rglob("*") if f.is_file() and f.suffix != ".safetensors"} == {".lock"}


def test_sets_that_overlap_share_pictures(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, computed = pocket.ready(pocket.tiny(seed=0), precision="fp32", quantisation="none"), []
    compute = features._computed
    monkeypatch.setattr(features, "_computed", lambda loaded, tower, images: computed.append(len(images)) or compute(loaded, tower, images))
    more = [*PICTURES, Image.new("RGB", (160, 160), "white")]
    first, both, again = (features.encode(loaded, images) for images in (PICTURES, more, more[2:]))
    assert computed == [3, 1]
    for found in (first, again):
        assert all(torch.equal(found.table[row], both.table[both.rows[name]]) for name, row in found.rows.items())


def test_a_picture_is_the_same_to_the_bit_in_any_company() -> None:
    """With the real encoder, whose products may be cut differently for batches of another size."""
    loaded = pocket.ready(pocket.assemble("pocket-mlp"), precision="bf16", quantisation="none")
    tower = loaded.model.model.vision_tower
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (160, 160, 3), dtype="uint8")) for _ in range(features.BATCH + 3)]
    whole = features._computed(loaded, tower, pictures)
    assert torch.equal(features._computed(loaded, tower, pictures[:1])[0], whole[0])
    assert torch.equal(features._computed(loaded, tower, pictures[-2:]), whole[-2:])


def test_cached_features_are_what_the_tower_says(cache: Path) -> None:
    loaded = pocket.ready(pocket.tiny(seed=0), precision="fp32", quantisation="none")
    fresh, again = features.encode(loaded, PICTURES), features.encode(loaded, PICTURES)
    pixels = loaded.processor.image_processor(PICTURES[:1], return_tensors="pt")["pixel_values"]
    row = fresh.rows[features.picture_digest(PICTURES[0])]
    assert torch.equal(fresh.table, again.table) and torch.equal(fresh.table[row], loaded.model.model.vision_tower.encode(pixels)[0])


def test_a_processor_sees_a_picture_once_while_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, seen = models.load(Run(model="tiny-llava", method="none", precision="fp32")), []
    make = models.Loaded.inputs
    monkeypatch.setattr(models.Loaded, "inputs", lambda loaded, image, question, **more: seen.append(question) or make(loaded, image, question, **more))
    pictures = features.encode(loaded, PICTURES)
    rows = [pictures.tokens(image, "what?") for image in PICTURES]
    first = pictures.batch(rows, PICTURES)
    assert seen == ["what?"] * 4, "a picture whose tokens were counted is made already"
    monkeypatch.setattr(features, "HELD", first["pixel_values"][0].nbytes)
    few = features.encode(loaded, PICTURES)
    seen.clear()
    again = few.batch([few.tokens(image, "what?") for image in PICTURES], PICTURES)
    assert seen == ["what?"] * 4 + ["", ""] and len(few.made) == 1, "of red, grey, blue and red there is room for red"
    assert all(torch.equal(first[name], again[name]) for name in first)
