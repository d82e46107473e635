"""The ledger: every parameter once, where it is, by the size it stands for."""

import pytest

from peftlab import ledger, methods, models
from peftlab.run import Run

TINY = {  # width 32, MLP 64, 2 layers, 4 heads of 8, 2 for k and v
    "attn": 2 * (2 * 32 * 32 + 2 * 32 * 16),
    "mlp": 2 * 3 * 32 * 64,
    "norm": 32 * (2 * 2 + 1),
}


def table(run: Run) -> dict[tuple[str, str], tuple[int, int]]:
    """(tower, location) -> (trainable, total)."""
    loaded = models.load(run)
    rows = ledger.count(methods.attach(loaded, run), loaded.towers)
    assert list(rows.columns) == ["tower", "location", "trainable", "total"]
    return {(r.tower, r.location): (r.trainable, r.total) for r in rows.itertuples()}


def test_counts_each_weight_once_where_it_is() -> None:
    run = Run(model="tiny-mlp", method="none", precision="fp32")
    rows, model = table(run), models.load(run).model
    assert {location: rows["llm", location] for location in TINY} == {location: (0, size) for location, size in TINY.items()}
    assert rows["llm", "embedding"] == (0, model.lm_head.weight.numel()), "the head is tied: one matrix"
    assert rows["vision", "-"][1] == sum(p.numel() for p in model.model.vision_tower.parameters())
    assert sum(total for _, total in rows.values()) == sum(p.numel() for p in model.parameters())


def test_what_a_method_adds_counts_where_it_acts() -> None:
    size = {"lora": {"attn": 2 * 4 * (2 * 64 + 2 * 48), "mlp": 2 * 4 * 3 * 96}, "ia3": {"attn": 2 * 32, "mlp": 2 * 64}, "adapter": {"mlp": 2 * 3 * 2 * 32 * 4}, "prefix": {"attn": 2 * 4 * 2 * 16}}
    for method, added in size.items():
        rows = table(Run(model="tiny-mlp", method=method, size=None if method == "ia3" else 4, precision="fp32"))
        assert {place: trainable for place, (trainable, _) in rows.items() if trainable} == {("llm", k): v for k, v in added.items()}
        for location, number in added.items():
            assert rows["llm", location][1] == TINY[location] + number


def test_the_connector_and_full_tuning() -> None:
    rows = table(Run(model="tiny-mlp", method="full", connector="tuned", precision="fp32"))
    assert all(trainable == (0 if tower == "vision" else total) for (tower, _), (trainable, total) in rows.items())


def test_4_bit_weights_count_by_what_they_stand_for() -> None:
    rows = table(Run(model="tiny-mlp", method="ia3", precision="bf16", quantisation="nf4"))
    assert rows["llm", "attn"] == (2 * 32, TINY["attn"] + 2 * 32)
    assert rows["llm", "mlp"] == (2 * 64, TINY["mlp"] + 2 * 64)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_adapter_bytes_are_fp32_whatever_the_base_is(precision: str) -> None:
    run = Run(model="tiny-mlp", method="adapter", size=4, precision=precision)
    assert ledger.adapter_bytes(methods.attach(models.load(run), run)) == 4 * 2 * 3 * 2 * 32 * 4
    assert ledger.adapter_bytes(models.load(run).model) == 0


def test_packed_weights_weigh_what_they_do() -> None:
    """At full size, against the bytes that bitsandbytes' own packing of one block of the pocket LLM takes."""
    from torch import nn

    from peftlab import loading

    for quantisation in methods.QUANTISED:
        blocks = nn.ModuleList([nn.Linear(576, 1536, bias=False).bfloat16()])
        weights = blocks[0].weight.numel()
        loading.pack(blocks, quantisation)
        weight = blocks[0].weight
        if quantisation == "int8":
            held, rows = weight.numel() * weight.element_size(), 4 * 1536
            assert weight.SCB.numel() * weight.SCB.element_size() == rows
        else:
            state = weight.quant_state
            parts = [weight.data, state.absmax, *([state.state2.absmax] if state.nested else [])]
            held = sum(t.numel() * t.element_size() for t in parts)
        assert held == pytest.approx(weights * ledger.PACKED_BYTES[quantisation], rel=0.01), quantisation
    bare = {q: ledger.expected(Run(method="lora", quantisation=q))["bytes"]["weights"] for q in ("none", *methods.QUANTISED)}
    assert bare["nf4"] < bare["nf4_single"] < bare["int8"] < bare["none"]


def test_what_is_stored_is_expected_whole_where_it_has_no_low_rank_any_more() -> None:
    lora, edited = (ledger.expected(Run(method=method)) for method in ("lora", "lora_dare_90"))
    assert edited["trainable"] == lora["trainable"] and lora["bytes"]["adapter"] == 4 * lora["trainable"]
    assert edited["bytes"]["adapter"] == 4 * 30 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536)


def test_checkpointing_is_expected_to_hold_less() -> None:
    held = [ledger.expected(Run(method="lora", checkpointing=c))["bytes"]["activations"] for c in (False, True)]
    assert 0 < held[1] < held[0] / 5
