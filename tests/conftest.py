"""Tests run offline, on the CPU, with one thread, and write only below a temporary folder."""

import os
from pathlib import Path

os.environ.update(  # before torch, transformers or pandas are imported by any test, and for every process a test starts
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
    CUDA_VISIBLE_DEVICES="",
    MPLBACKEND="agg",
    JUPYTER_PLATFORM_DIRS="1",
)

import pytest


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of data/: what the test prepares, runs and collects goes there."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.setenv("PEFTLAB_WORK", str(folder))
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache: no asset, no converted model, no picture features."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("PEFTLAB_CACHE", str(folder))
    return folder
