"""What every family must be: mapped, loadable from a folder as from the hub, quantised in the LLM alone, blind to company in a batch."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from peftlab import datasets, features, inference, loading, methods, models, training
from peftlab.models import Loaded, ModelCard
from peftlab.records import Example
from peftlab.run import Run

Load = Callable[[Run], Loaded]


def plain(name: str, **axes: object) -> Run:
    """A run of a tiny model in fp32."""
    return Run.from_dict({"model": name, "precision": "fp32", "steps": 3, "batch_size": 2, **axes})


def test_the_towers_hold_every_parameter_once(name: str) -> None:
    loaded = models.load(plain(name))
    towers, named = loaded.towers, [n for n, _ in loaded.model.named_parameters()]
    assert {towers.part(n) for n in named} == {"vision", "connector", "llm"}
    for prefix in (towers.vision, *towers.connector, towers.llm):
        assert any(f"{n}.".startswith(f"{prefix}.") for n in named), f"{prefix} of {name} holds no parameter"
    for layer in range(loaded.model.config.get_text_config().num_hidden_layers):
        for linear in (*towers.attn, *towers.mlp):
            assert isinstance(loaded.model.get_submodule(f"{towers.layer.format(i=layer)}.{linear}"), nn.Linear)
    assert sum(p.numel() for p in loaded.model.parameters()) < 100_000


def test_a_parameter_in_no_tower_is_named() -> None:
    with pytest.raises(ValueError, match="model.qformer.weight is in no tower"):
        models.load(plain("tiny-llava")).towers.part("model.qformer.weight")


def test_it_trains_and_answers(name: str, examples: list[Example]) -> None:
    run = plain(name, method="lora", connector="tuned")
    loaded = models.load(run)
    model = methods.attach(loaded, run)
    log = training.finetune(model, loaded, examples, run, progress=False)
    assert log.steps["loss"].between(0, 20).all()
    answers = inference.answer(model, loaded, examples, run, max_new_tokens=3)
    assert len(answers) == 4
    assert all(isinstance(a, str) for a in answers)


def test_company_in_a_batch_changes_nothing(name: str, loud: Load, examples: list[Example], agree: Callable[..., None]) -> None:
    """Neither left-padded, as questions are answered, nor right-padded, as answers are learned; pictures of other sizes are beside them."""
    run = plain(name)
    loaded = loud(run)
    agree(loaded.model, loaded, examples)
    alone = [training.answer_loss(loaded.model, loaded, [e], run) for e in examples]
    lengths = [len(loaded.processor.tokenizer(e.answers[0], add_special_tokens=False)["input_ids"]) + 1 for e in examples]
    mean = sum(a * n for a, n in zip(alone, lengths, strict=True)) / sum(lengths)
    assert training.answer_loss(loaded.model, loaded, examples, run) == pytest.approx(mean, abs=1e-4)


def test_answers_see_the_picture_and_only_what_is_before_them(name: str, loud: Load, examples: list[Example]) -> None:
    loaded = loud(plain(name))
    pictures = features.encode(loaded, [e.image for e in examples])
    item = next(i for i in training.tokenise(pictures, [replace(examples[0], answers=("a rose",))]))
    own = [label != training.IGNORE for label in item.labels]
    assert loaded.processor.tokenizer.decode([i for i, mine in zip(item.ids, own, strict=True) if mine][:-1]) == "a rose"
    assert item.ids[-1] == loaded.end

    def logits(ids: list[int], example: Example) -> torch.Tensor:
        """(answer tokens, vocabulary): what is expected at each token of the answer."""
        with torch.no_grad():
            made = loaded.model(**pictures.batch([{"input_ids": ids, **item.types}], [example.image]), use_cache=False).logits
        return made[0, own.index(True) - 1 : -1]

    first = logits(item.ids, examples[0])
    later = logits([*item.ids[:-2], item.ids[-3], item.ids[-1]], examples[0])
    torch.testing.assert_close(first[:-1], later[:-1], atol=1e-5, rtol=0)
    assert not torch.allclose(first[-1], later[-1], atol=1e-4), "the changed token is not seen by the one after it"
    dark = replace(examples[0], image=examples[0].image.point(lambda value: value // 8))
    pictures = features.encode(loaded, [dark.image])
    assert not torch.allclose(first, logits(item.ids, dark), atol=1e-4), "the picture does not reach the answer"


@pytest.mark.parametrize("quantisation", methods.QUANTISED)
def test_packed_are_the_llms_blocks_and_nothing_else(name: str, quantisation: str) -> None:
    loaded = models.load(plain(name, quantisation=quantisation))
    packed = {n: module for n, module in loaded.model.named_modules() if type(module).__name__ == loading.PACKED[quantisation]}
    layers = loaded.model.config.get_text_config().num_hidden_layers
    linears = {f"{loaded.towers.layer.format(i=i)}.{linear}" for i in range(layers) for linear in (*loaded.towers.attn, *loaded.towers.mlp)}
    assert packed.keys() == linears
    assert type(loaded.model.lm_head) is nn.Linear
    for module in packed.values():
        if quantisation == "int8":
            assert module.weight.dtype == torch.int8
        else:
            assert (module.weight.quant_state.quant_type, module.weight.quant_state.nested) == ("nf4", quantisation == "nf4")


def test_packed_elsewhere_or_otherwise_is_refused() -> None:
    loaded = models.load(plain("tiny-llava"))
    with pytest.raises(ValueError, match="model.language_model.layers.0.self_attn.q_proj is not quantised after loading with quantisation nf4"):
        loading.check(loaded.model, loaded.towers, "nf4")
    loading.pack(loaded.model.model.multi_modal_projector, "nf4")
    with pytest.raises(ValueError, match="model.multi_modal_projector.linear_1 is a Linear4bit after loading with quantisation none"):
        loading.check(loaded.model, loaded.towers, "none")
    loaded = models.load(plain("tiny-llava", quantisation="int8"))
    with pytest.raises(ValueError, match="q_proj is a Linear8bitLt after loading with quantisation nf4"):
        loading.check(loaded.model, loaded.towers, "nf4")


def test_a_folder_loads_as_the_hub_does(name: str, examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code that loads published weights, on a tiny model saved as they are; the processor with it, its video side left out."""
    card = models.card(name)
    if card.family == "pocket":
        pytest.skip("a pocket base comes from packages and a delta, never from the hub")
    run = plain(name)
    first = models.load(run)
    first.model.save_pretrained(tmp_path)
    first.processor.save_pretrained(tmp_path)
    there = ModelCard(name, card.label, card.family, str(tmp_path), "main", card.licence, ())
    monkeypatch.setitem(models.MODELS, name, there)
    again = models.load(run)
    for key, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[key]), key
    made, remade = (one.inputs(examples[0].image, "What is it?") for one in (first, again))
    assert made.keys() == remade.keys()
    assert all(torch.equal(made[key], remade[key]) for key in made)
    assert {p.dtype for p in models.load(replace(run, precision="bf16")).model.parameters()} == {torch.bfloat16}
    models.load(replace(run, quantisation="nf4"))


def test_seen_are_data_sets_that_have_a_card() -> None:
    for card in models.MODELS.values():
        assert set(card.seen) <= set(datasets.DATASETS), card.name


def test_a_name_without_a_card_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="model is 'llava'; choose one of pocket-mlp, pocket-resampler, pocket-merger, tiny-mlp, tiny-resampler, tiny-merger, llava-1.5-7b"):
        models.card("llava")
    with pytest.raises(ValueError, match="only as remote code for an old transformers; qwen2.5-vl-7b stands for it"):
        Run(model="Qwen-VL-Chat")
    with pytest.raises(ValueError, match="no full-size configuration of tiny-mlp is written down"):
        models.skeleton("tiny-mlp")
    with pytest.raises(ValueError, match="no full-size configuration of tiny-llava is written down; there are llava-1.5-7b, sharegpt4v-7b, llava-1.5-13b"):
        models.skeleton("tiny-llava")


@pytest.mark.parametrize("method", ["lora", "full", "lora_dare_50"])
def test_a_tuned_model_is_exported_as_one_of_transformers_own(name: str, method: str, examples: list[Example], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes out loads as any published model of its family does, and answers as the tuned one."""
    card = models.card(name)
    if card.family == "pocket":
        pytest.skip("a pocket base comes from packages and a delta, never from the hub")
    run = plain(name, method=method, connector="tuned", lr=1e-2)
    loaded = models.load(run)
    model = methods.attach(loaded, run)
    training.finetune(model, loaded, examples, run, progress=False)
    (tmp_path / "finetune").mkdir()
    training.save(model, tmp_path / "finetune")
    before = training.answer_loss(model, loaded, examples, run)
    assert before != pytest.approx(training.answer_loss(models.load(run).model, models.load(run), examples, run), rel=1e-3)
    training.export(replace(run, precision="bf16"), tmp_path / "finetune", tmp_path / "whole")
    monkeypatch.setitem(models.MODELS, name, ModelCard(name, card.label, card.family, str(tmp_path / "whole"), "main", card.licence, ()))
    again = models.load(run)
    assert training.answer_loss(again.model, again, examples, run) == pytest.approx(before, rel=1e-4)
    with pytest.raises(ValueError, match="whole is not empty"):
        training.export(run, tmp_path / "finetune", tmp_path / "whole")


def test_what_cannot_be_merged_is_not_exported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Prefix-Tuning cannot be merged into the weights: It adds to the sequence"):
        training.export(plain("tiny-llava", method="prefix"), tmp_path, tmp_path / "whole")
    with pytest.raises(ValueError, match="with quantisation nf4"):
        training.export(plain("tiny-llava", method="lora", quantisation="nf4"), tmp_path, tmp_path / "whole")
    assert not (tmp_path / "whole").exists()
