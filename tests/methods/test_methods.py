"""What every method must be: its own parameters and no others, fp32, seeded, trainable, storable, and blind to padding."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn

from peftlab import ledger, methods, models, training
from peftlab.run import Run

PEFT = tuple(m for m, card in methods.METHODS.items() if card.module in ("variants", "adapter", "lora") or m in ("lora", "ia3", "adapter", "prefix"))
LOUD = {"ia3": 0.2, "prefix": 0.1, "vera": 0.2, "fourierft": 0.2, "ln_tuning": 0.1, "prompt": 0.2}  # learning rates of five steps that show


def text(model: nn.Module) -> Any:
    """The LLM's configuration."""
    return model.config.get_text_config()


def inputs(model: nn.Module, *lengths: int) -> dict[str, torch.Tensor]:
    """Right-padded rows of `lengths` text tokens after a picture, a picture each; the same for the same model and row."""
    config = getattr(model, "get_base_model", lambda: model)().config
    side, tokens = (8, 4) if hasattr(config.vision_config, "patch_size") else (160, 25)
    ids = torch.zeros(len(lengths), tokens + max(lengths), dtype=torch.long)
    mask = torch.zeros_like(ids)
    pictures = []
    for row, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(length)
        ids[row, :tokens] = config.image_token_index
        ids[row, tokens : tokens + length] = torch.randint(3, 80, (length,), generator=generator)
        mask[row, : tokens + length] = 1
        pictures.append(torch.randn(3, side, side, generator=generator))
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": torch.stack(pictures)}


def logits(model: nn.Module, *lengths: int) -> torch.Tensor:
    """(rows, tokens, vocabulary) in eval mode."""
    with torch.no_grad():
        return model.eval()(**inputs(model, *lengths)).logits


def trainable(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: p for n, p in methods.named_parameters(model) if p.requires_grad}


def disturb(model: nn.Module) -> None:
    """Move every trainable tensor as training would: a fixed random step, no part of the start values is kept."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)


def steps(model: nn.Module, n: int = 5, *, precision: str = "fp32", lr: float = 1e-2) -> list[float]:
    """`n` AdamW steps on one batch; returns the loss before each and after the last."""
    batch = inputs(model, 5, 9)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    labels[:, :-9] = -100  # no loss on the picture
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr, weight_decay=0.0)
    losses = []
    model.train()
    torch.manual_seed(0)
    for _ in range(n + 1):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = model(**batch, labels=labels, use_cache=False).loss
        losses.append(loss.item())
        loss.backward()
        if len(losses) <= n:
            optimiser.step()
        optimiser.zero_grad()
    return losses


def closed_form(run: Run, config: Any, connector: int) -> int:
    """What the method's definition says trains, from the sizes of the LLM alone."""
    size, d, f = run.resolved()["size"], config.hidden_size, config.intermediate_size
    kv = config.num_key_value_heads * config.head_dim
    blocks = {
        "none": 0,
        "connector": 0,
        "full": 2 * d * d + 2 * d * kv + 3 * d * f + 2 * d,
        "lora": (size or 0) * (2 * (d + d) + 2 * (d + kv) + 3 * (d + f)),
        "ia3": 2 * kv + f,
        "adapter": 3 * 2 * d * (size or 0),
        "prefix": (size or 0) * 2 * kv,
    }[run.method]
    whole = {"full": config.vocab_size * d + d}.get(run.method, 0)
    return blocks * config.num_hidden_layers + whole + connector * (run.connector == "tuned")


def test_trains_its_own_and_the_tuned_connector_only(load: Any, run: Run) -> None:
    loaded = load(run)
    everything = {n for n, _ in loaded.model.named_parameters()}
    model = methods.attach(loaded, run)
    ours = trainable(model)
    connector = {n for n in ours if n.startswith("model.multi_modal_projector.")}
    whole = {n for n in everything if n.startswith("model.multi_modal_projector.")}
    assert connector == (whole if run.connector == "tuned" else set())
    for name in ours.keys() - connector:
        assert name.startswith(("model.language_model.", "prompt_encoder.", "soft_prompt.")), f"{name} is outside the LLM"
        assert (name in everything) == (run.method == "full" or methods.card(run.method).module == "selective"), f"{name} is not what {run.method} trains"
    assert {p.dtype for p in ours.values()} <= {torch.float32}


def test_count_is_the_closed_form(load: Any, run: Run) -> None:
    if methods.card(run.method).group != "core":
        pytest.skip("its authors' formula is peft's; the ledger counts what is there")
    loaded = load(run)
    connector = sum(p.numel() for p in loaded.model.model.multi_modal_projector.parameters())
    expected = closed_form(run, text(loaded.model), connector)
    assert sum(p.numel() for p in trainable(methods.attach(loaded, run)).values()) == expected


def test_identity_at_first_where_the_card_says_so(load: Any, run: Run) -> None:
    base = logits(load(run).model, 9)
    near = {"pissa": 1e-4, "hra": 1e-4}.get(run.method, 1e-6)  # products that undo each other, to rounding
    same = torch.allclose(logits(methods.attach(load(run), run), 9), base, atol=near)
    assert same == methods.card(run.method).identity


def test_start_values_depend_on_the_seed_alone(load: Any, run: Run) -> None:
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = trainable(methods.attach(load(run), run))
    assert torch.equal(torch.random.get_rng_state(), state), "attach left a random state behind"
    torch.manual_seed(6)
    again = trainable(methods.attach(load(run), run))
    other = trainable(methods.attach(load(run), Run(**{**run.axes(), "seed": 7})))
    assert all(torch.equal(first[n], again[n]) for n in first)
    drawn = {"lora", "adapter", "prefix", "dora", "rslora", "lora_plus", "adapter_houlsby", "adapter_pfeiffer", "adapter_parallel", "hra", "loha", "lokr", "prompt"}
    drawn |= {method for method, card in methods.METHODS.items() if card.module == "merged"}
    assert (run.method in drawn) == any(not torch.equal(first[n], other[n]) for n in first)


def test_training_moves_what_trains_and_nothing_else(load: Any, tuned_run: Run) -> None:
    run = tuned_run
    model = methods.attach(load(run), run)
    before = {n: t.detach().clone() for n, t in [*methods.named_parameters(model), *model.named_buffers()]}
    losses = steps(model, lr=LOUD.get(run.method, 1e-2))
    ours = trainable(model)
    for name, tensor in [*methods.named_parameters(model), *model.named_buffers()]:
        assert torch.equal(tensor, before[name]) != (name in ours), f"{name} {'did not move' if name in ours else 'moved'}"
    assert losses[-1] < 0.97 * losses[0], f"the loss on one batch went from {losses[0]:.3f} to {losses[-1]:.3f}"


@pytest.mark.parametrize("method", [m for m in methods.METHODS if m != "none"])
def test_bf16_base_trains_under_autocast(load: Any, method: str, sizes: dict[str, int]) -> None:
    run = Run(model="tiny-mlp", method=method, connector="tuned", precision="bf16", size=sizes.get(method))
    model = methods.attach(load(run), run)
    losses = steps(model, precision="bf16", lr=LOUD.get(method, 1e-2))
    assert {p.dtype for p in trainable(model).values()} == {torch.float32}
    assert losses[-1] < 0.97 * losses[0]


def test_padding_and_company_change_nothing(load: Any, run: Run) -> None:
    model = methods.attach(load(run), run)
    disturb(model)
    together, tokens = logits(model, 5, 9), inputs(model, 5)["input_ids"].shape[1]
    torch.testing.assert_close(together[:1, :tokens], logits(model, 5), atol=1e-4, rtol=0)
    torch.testing.assert_close(together[1:], logits(model, 9), atol=1e-4, rtol=0)


def test_generates_what_its_forward_says(load: Any, run: Run) -> None:
    """Greedy tokens with a cache, in a left-padded batch, are the arg max of an uncached forward on the row alone."""
    model = methods.attach(load(run), run).eval()
    disturb(model)
    long, short = inputs(model, 9), inputs(model, 5)
    pad = [nn.functional.pad(short[k], (4, 0)) for k in ("input_ids", "attention_mask")]
    batch = {
        "input_ids": torch.cat([long["input_ids"], pad[0]]),
        "attention_mask": torch.cat([long["attention_mask"], pad[1]]),
        "pixel_values": torch.cat([long["pixel_values"], short["pixel_values"]]),
    }
    out = model.generate(**batch, max_new_tokens=4, min_new_tokens=4, do_sample=False, pad_token_id=0, eos_token_id=None, return_dict_in_generate=True, output_logits=True, suppress_tokens=[model.config.image_token_index])
    rows = out.sequences[1:, 4:]  # the short row without its pads
    with torch.no_grad():
        whole = model(input_ids=rows, attention_mask=torch.ones_like(rows), pixel_values=short["pixel_values"]).logits
    start = short["input_ids"].shape[1] - 1
    torch.testing.assert_close(torch.stack([step[1] for step in out.logits]), whole[0, start:-1], atol=1e-4, rtol=0)


def test_saves_and_restores(load: Any, run: Run, tmp_path: Path) -> None:
    model = methods.attach(load(run), run)
    disturb(model)
    training.save(model, tmp_path)
    other = run.seed if methods.card(run.method).seeded else 7
    fresh = methods.attach(load(run), Run(**{**run.axes(), "seed": other}))
    training.restore(fresh, tmp_path)
    assert torch.equal(logits(fresh, 9), logits(model, 9))


@pytest.mark.parametrize("method", PEFT)
def test_peft_saves_and_restores(load: Any, method: str, tmp_path: Path, sizes: dict[str, int]) -> None:
    run = Run(model="tiny-mlp", method=method, precision="fp32", size=sizes.get(method))
    model = methods.attach(load(run), run)
    disturb(model)
    model.save_pretrained(tmp_path)
    fresh = PeftModel.from_pretrained(load(run).model, tmp_path)
    assert not torch.allclose(logits(load(run).model, 9), logits(model, 9), atol=1e-3), "the adapter does nothing: the test would prove nothing"
    torch.testing.assert_close(logits(fresh, 9), logits(model, 9), atol=1e-5, rtol=0)


PACKABLE = [(m, q, p) for m, card in methods.METHODS.items() for q in card.quantisations for p in ("bf16", "fp32") if m != "none" and q != "none" and (p == "bf16" or q == "nf4")]


@pytest.mark.parametrize(("method", "quantisation", "precision"), PACKABLE)
def test_attaches_to_a_packed_base(method: str, quantisation: str, precision: str, tmp_path: Path, sizes: dict[str, int]) -> None:
    run = Run(model="tiny-mlp", method=method, connector="tuned", precision=precision, quantisation=quantisation, size=sizes.get(method))
    model = methods.attach(models.load(run), run)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits(model, 9)  # a forward in eval mode must not cut the gradients of a later step
    frozen = {n: p.detach().clone() for n, p in methods.named_parameters(model) if not p.requires_grad}
    losses = steps(model, precision=precision, lr=LOUD.get(method, 1e-2))
    assert losses[-1] < 0.99 * losses[0]
    assert {n for n, t in frozen.items() if t.dtype == (torch.int8 if quantisation == "int8" else torch.uint8)}, "no weight is packed"
    assert all(torch.equal(t, frozen[n]) for n, t in methods.named_parameters(model) if n in frozen)
    training.save(model, tmp_path)
    fresh = methods.attach(models.load(run), run)
    training.restore(fresh, tmp_path)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        assert torch.equal(logits(fresh, 9), logits(model, 9))


@pytest.mark.parametrize("method", [m for m, card in methods.METHODS.items() if card.merges])
def test_merged_it_answers_as_attached(load: Any, method: str, sizes: dict[str, int]) -> None:
    run = Run(model="tiny-mlp", method=method, connector="frozen" if method == "none" else "tuned", precision="fp32", size=sizes.get(method))
    model = methods.settled(load(run), run)
    disturb(model)
    attached = logits(model, 9)
    assert not torch.allclose(attached, logits(load(run).model, 9), atol=1e-3) or method == "none", "nothing was learned: the test would prove nothing"
    bare = methods.merge(model, run)
    assert {n for n, _ in bare.named_parameters()} == {n for n, _ in load(run).model.named_parameters()}
    torch.testing.assert_close(logits(bare, 9), attached, atol=2e-4, rtol=1e-3)


def test_what_cannot_be_merged_says_why() -> None:
    for method, because in (("prefix", "adds to the sequence"), ("prompt", "adds to the sequence"), ("adapter", "bends what passes")):
        with pytest.raises(ValueError, match=f"cannot be merged into the weights: .*{because}"):
            methods.merge(None, Run(method=method, precision="fp32"))
    assert all(card.cannot for card in methods.METHODS.values() if not card.merges or (card.quantisations == ("none",) and card.group == "variant"))
    for other in ({"precision": "bf16"}, {"precision": "fp32", "quantisation": "nf4"}):
        with pytest.raises(ValueError, match="merging needs the base in fp32"):
            methods.merge(None, Run(method="lora", **other))


def test_targets_are_full_paths_in_the_llm(load: Any) -> None:
    """The CLIP tower has q_proj too; the lm_head and the projector are linears too."""
    loaded = load(Run(model="tiny-mlp", precision="fp32"))
    model = methods.attach(loaded, Run(model="tiny-mlp", precision="fp32", method="lora"))
    touched = {n.rpartition(".lora_A")[0] for n in trainable(model) if ".lora_A." in n}
    assert len(touched) == 7 * 2
    assert all(n.startswith("model.language_model.layers.") for n in touched)


PAPER = {"adapter": (256, 201_326_592, 3.060), "lora": (128, 319_815_680, 4.616), "ia3": (None, 614_400, 0.306), "prefix": (20, 5_242_880, 0.371)}


@pytest.mark.parametrize("method", PAPER)
def test_counts_of_zhou_2024_at_7b(method: str) -> None:
    """LLaVA-1.5-7B on the meta device: the exact counts and the percentages of their Table 15, connector tuned."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    from peftlab.models.pocket import TOWERS

    size, expected, percent = PAPER[method]
    assert methods.card(method).size_paper == size
    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=336, patch_size=14, projection_dim=768
    )  # fmt: skip
    llm = LlamaConfig(
        hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, vocab_size=32000, tie_word_embeddings=False
    )  # fmt: skip
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=llm, tie_word_embeddings=False))
        model = methods.attach(models.Loaded(model, None, TOWERS), Run(method=method, size=size, connector="tuned"))
    table = ledger.count(model, TOWERS).set_index(["tower", "location"])
    assert table.trainable["llm"].sum() == expected
    assert (table.trainable.connector["-"], table.total.connector["-"], table.total.vision["-"]) == (20_979_712, 20_979_712, 303_507_456)
    assert table.total["llm"].sum() - expected == 6_738_415_616
    assert round(100 * table.trainable.sum() / table.total.sum(), 3) == percent
