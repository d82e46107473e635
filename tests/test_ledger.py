"""The ledger: every parameter once, where it is, by the size it stands for."""

import json

import pytest
import torch
from torch import nn

from peftlab import ledger, loading, methods, models, paths
from peftlab.models import Loaded
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


def dropless(loaded: Loaded, run: Run) -> nn.Module:
    """The method attached, with nothing dropped."""
    model = methods.attach(loaded, run).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


@pytest.mark.parametrize("method", ["none", "full", "lora", "ia3", "adapter", "adapter_houlsby", "ln_tuning", "last_layers"])
@pytest.mark.parametrize("attention", ["grouped", "sdpa"])
def test_what_is_kept_is_what_autograd_saves(method: str, attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 3 sequences of 40 tokens, to a hundredth."""
    monkeypatch.setattr(loading, "best_attention", lambda: attention)
    run = Run(model="tiny-mlp", method=method, precision="fp32", batch_size=3, layers=1 if method == "last_layers" else None)
    loaded = models.load(run)
    dropless(loaded, run)
    llm, found = loaded.model.get_submodule(loaded.towers.llm), dict[int, int]()
    llm.config._attn_implementation = attention
    own = {t.untyped_storage().data_ptr() for t in (*llm.parameters(), *llm.buffers())}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        held.append(tensor)  # or its place would be given to another
        if (place := tensor.untyped_storage().data_ptr()) not in own:
            found[place] = tensor.untyped_storage().nbytes()
        return tensor

    held: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        out = llm(inputs_embeds=torch.randn(3, 40, 32, requires_grad=method == "full"), attention_mask=torch.ones(3, 40, dtype=torch.long), use_cache=False)
    copy = loading.outline(models.load(run))
    counted = ledger.kept(copy, dropless(copy, run), run, tokens=40, size=None)
    assert counted == pytest.approx(sum(found.values()), rel=0.01) and out.last_hidden_state.requires_grad == bool(counted)


@pytest.mark.parametrize("method", ["lora", "ia3", "adapter", "prefix"])
def test_the_memory_expected_is_what_a_gpu_took(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At real size, within a twentieth of the peaks in bench/results/sizes-gpu.json."""
    pairs = json.loads((paths.root() / "bench" / "results" / "sizes-gpu.json").read_text())["pairs"]
    (peak,) = [pair["ours"][0] for pair in pairs if pair["what"] == f"peak memory: llava-1.5-7b {method}" and "ledger" in pair["against"]]
    monkeypatch.setattr(loading, "best_attention", lambda: "sdpa")
    held = ledger.expected(Run(model="llava-1.5-7b", method=method, batch_size=4), tokens=711)["bytes"]
    assert sum(held[name] for name in ("weights", "gradients", "optimiser", "activations")) / 1e9 == pytest.approx(peak, rel=0.05)


@pytest.mark.parametrize("model", ["tiny-mlp", "tiny-merger", "tiny-resampler", "tiny-llava", "tiny-llava-onevision", "tiny-qwen2-vl", "tiny-qwen3-vl", "tiny-smolvlm2", "tiny-internvl3", "tiny-paligemma2", "tiny-gemma3"])
def test_the_architecture_is_left_as_it_was(model: str) -> None:
    """Every family is counted, and its types, places and attention are what they were."""
    run = Run(model=model, method="lora", precision="bf16", batch_size=2)
    outline = loading.outline(models.load(run))
    attached = methods.attach(outline, run)
    llm = outline.model.get_submodule(outline.towers.llm)
    before = [(name, p.dtype, p.device, p.requires_grad) for name, p in attached.named_parameters()], llm.config._attn_implementation, llm.training
    assert ledger.kept(outline, attached, run, tokens=20, size=16) > 0
    assert before == ([(name, p.dtype, p.device, p.requires_grad) for name, p in attached.named_parameters()], llm.config._attn_implementation, llm.training)


def test_int8_products_keep_their_inputs() -> None:
    plain, packed = (ledger.expected(Run(method="ia3", quantisation=q))["bytes"]["activations"] for q in ("none", "int8"))
    assert packed > plain
