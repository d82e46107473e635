"""What it saves that the frozen encoder sees each picture once."""

import os
import tempfile
import time

from bench.pairs import Pair, in_turn
from peftlab import datasets, features, models
from peftlab.run import Run

PICTURES = 320


def measure() -> list[Pair]:
    """Features of a run's pictures, from the cache and from the encoder."""
    loaded = models.load(Run())
    images = list({e.picture_id: e.image for e in datasets.load("icons_choice", "train", 2 * PICTURES)}.values())[:PICTURES]
    tower = loaded.model.get_submodule(loaded.towers.vision)

    def cached() -> float:
        start = time.perf_counter()
        features.encode(loaded, images)
        return time.perf_counter() - start

    def fresh() -> float:
        start = time.perf_counter()
        features._computed(loaded, tower, images)
        return time.perf_counter() - start

    kept = os.environ.get("PEFTLAB_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PEFTLAB_CACHE"] = folder
        features.encode(loaded, images)
        ours, peer = in_turn(cached, fresh, rounds=3)
    os.environ.pop("PEFTLAB_CACHE") if kept is None else os.environ.update(PEFTLAB_CACHE=kept)
    return [Pair(f"features of {PICTURES} pictures", ours, peer, "encoding them in each run")]
