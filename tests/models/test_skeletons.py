"""Full-size architectures without weights: their totals are those of the published checkpoints."""

from collections import Counter

import pytest

from peftlab import models

PUBLISHED = {
    "qwen2-vl-2b": 2_208_985_600,
    "qwen2-vl-7b": 8_291_375_616,
    "qwen2.5-vl-3b": 3_754_622_976,
    "qwen2.5-vl-7b": 8_292_166_656,
    "qwen3-vl-2b": 2_127_532_032,
    "qwen3-vl-4b": 4_437_815_808,
    "qwen3-vl-8b": 8_767_123_696,
    "smolvlm2-256m": 256_484_928,
    "smolvlm2-500m": 507_482_304,
    "smolvlm2-2.2b": 2_246_784_880,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_skeleton_has_the_published_size(name: str) -> None:
    loaded = models.skeleton(name)
    counted: Counter[str] = Counter()
    for parameter, tensor in loaded.model.named_parameters():
        assert tensor.is_meta
        counted[loaded.towers.part(parameter)] += tensor.numel()
    assert counted.total() == PUBLISHED[name]
    assert set(counted) == {"vision", "connector", "llm"}
