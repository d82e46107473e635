"""Answers, likelihoods of choices and the loss of text are what one question at a time gives, for every core method."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from peftlab import features, inference, methods, models, records, training
from peftlab.models import RANDOM, Loaded
from peftlab.records import Example
from peftlab.run import Run

CORE = [m for m, card in methods.METHODS.items() if card.group == "core"]
AHEAD = [m for m in methods.METHODS if m in ("prefix", "prompt")]  # tokens of their own before the prompt
FAMILIES = [name for name, card in models.MODELS.items() if card.source == RANDOM]
WORDS = "What which one is it and this thing here please now or then left right above cat dog fox a".split()


def run_of(method: str, **axes: object) -> Run:
    """A run of a tiny model, the connector tuned where it can be."""
    connector = "tuned" if "tuned" in methods.card(method).connectors else "frozen"
    return Run.from_dict({"model": "tiny-mlp", "method": method, "connector": connector, "precision": "fp32", **axes})


def loud(run: Run) -> tuple[nn.Module, Loaded]:
    """A tiny model with its method, all weights large enough to matter; the method's own are not at their start."""
    loaded = models.load(run)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for parameter in loaded.model.parameters():
            if parameter.ndim == 2 and parameter.is_floating_point():
                parameter.copy_(torch.randn(parameter.shape) * 0.15)
        model = methods.settled(loaded, run)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape) * 0.05)
    return model.eval(), loaded


def drawn(count: int) -> list[Example]:
    """Questions of one to twelve words on noise, each with two to four choices, or with none."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(count):
        asked = " ".join(rng.choice(WORDS, rng.integers(1, 13))) + "?"
        choices = tuple(" ".join(rng.choice(WORDS, rng.integers(1, 4))) for _ in range(rng.integers(2, 5))) if i % 5 else ()
        made.append(Example(f"e{i}", f"p{i}", Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype="uint8")), asked, ("cat",), "t", 0, "a", choices))
    return made


@pytest.mark.parametrize("method", CORE)
def test_answers_do_not_depend_on_the_size_of_the_batch(method: str, monkeypatch: pytest.MonkeyPatch, cache: object) -> None:
    examples = drawn(32)
    run = run_of(method)
    model, loaded = loud(run)
    given = {}
    for size in (1, 32):
        monkeypatch.setattr(inference, "BATCH", size)
        given[size] = inference.answer(model, loaded, examples, run, max_new_tokens=8)
    assert given[1] == given[32] and len(set(given[1])) > 3, "in fp32 to the letter"


ASKED = {"a?": "cat", "which one?": "dog", "What is it?": "it", "then now or left?": "fox"}


def known(count: int) -> list[Example]:
    """Four questions of different length, each on many pictures, with an answer of its own."""
    asked = list(ASKED.items())
    return [replace(e, question=asked[i % 4][0], answers=(asked[i % 4][1],)) for i, e in enumerate(drawn(count))]


@pytest.fixture(scope="module")
def sure(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Weights of the tiny model, all trained on four answers: it prefers them clearly, as a base does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEFTLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        run = run_of("full", steps=60, batch_size=16, lr=1e-2, connector_lr=1e-2)
        model, loaded = loud(run)
        log = training.finetune(model, loaded, known(64), run, progress=False)
        assert log.steps["loss"].tail(10).mean() < 0.5, "it has not learned to be sure of anything"
        return {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}


@pytest.mark.parametrize("method", CORE)
def test_answers_in_bf16_hardly_depend_on_the_size_of_the_batch(method: str, sure: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, cache: object) -> None:
    """A batch rounds its products otherwise than one question does; only a model that cares little which word comes next may answer otherwise."""
    examples = known(200)
    run = run_of(method, precision="bf16")
    loaded = models.load(run)
    loaded.model.load_state_dict(sure)
    model = methods.settled(loaded, run).eval()
    given = {}
    for size in (1, 32):
        monkeypatch.setattr(inference, "BATCH", size)
        given[size] = inference.answer(model, loaded, examples, run, max_new_tokens=4)
    assert np.mean([a == b for a, b in zip(given[1], given[32], strict=True)]) >= 0.995
    assert len(set(given[32])) > 1


@pytest.mark.parametrize("name", FAMILIES)
def test_under_bf16_logits_are_fine_grained_and_the_cache_is_not_larger(name: str, cache: object, monkeypatch: pytest.MonkeyPatch) -> None:
    run, seen = run_of("lora", model=name, precision="bf16"), []
    model, loaded = loud(run)
    weigh = inference._likelihoods

    def noted(model: nn.Module, held: Any, following: torch.Tensor, *rest: Any) -> list:
        seen.append((following, {part.dtype for layer in held.layers for part in (layer.keys, layer.values)}))
        return weigh(model, held, following, *rest)

    monkeypatch.setattr(inference, "_likelihoods", noted)
    asked = drawn(6)
    before = inference.answer_and_choose(model, loaded, asked, [("one", "two")] * 6, run, max_new_tokens=2)
    assert all((logits != logits.bfloat16().float()).float().mean() > 0.5 for logits, _ in seen), "logits are rounded to bf16"
    assert set().union(*(kinds for _, kinds in seen)) == {torch.bfloat16}
    assert inference.answer_and_choose(model, loaded, asked, [("one", "two")] * 6, run, max_new_tokens=2) == before
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(input_ids=torch.tensor([[5, 6]])).logits.dtype == torch.bfloat16, "training is not as it was"


def plainly(model: nn.Module, loaded: Loaded, example: Example, run: Run) -> list[float]:
    """The mean log-probability of each choice's tokens and the end of turn, from a whole pass over prompt and choice."""
    pictures = features.encode(loaded, [example.image])
    prompt, found = pictures.tokens(example.image, example.question), []
    for choice in example.choices:
        said = [*loaded.processor.tokenizer(choice, add_special_tokens=False)["input_ids"], loaded.end]
        types = {"input_ids": said, "token_type_ids": [loaded.answer_type] * len(said), "mm_token_type_ids": [0] * len(said)}
        row = {name: values + types[name] for name, values in prompt.items()}
        with torch.no_grad():
            logits = model(**pictures.batch([row], [example.image]), use_cache=False).logits[0]
        known = F.log_softmax(logits[-len(said) - 1 : -1].float(), -1)
        found.append(float(known[range(len(said)), said].mean()))
    return found


@pytest.mark.parametrize("method", sorted({*CORE, *AHEAD}))
def test_likelihoods_of_choices_are_those_of_one_at_a_time(method: str, cache: object) -> None:
    examples = drawn(24)
    run = run_of(method)
    model, loaded = loud(run)
    answers, found = inference.answer_and_choose(model, loaded, examples, [e.choices for e in examples], run, max_new_tokens=5)
    assert answers == inference.answer(model, loaded, examples, run, max_new_tokens=5) and len(set(answers)) > 3
    for example, values in zip(examples, found, strict=True):
        assert values == (pytest.approx(plainly(model, loaded, example, run), abs=1e-4) if example.choices else None)
    assert len({v.index(max(v)) for v in found if v}) > 1


@pytest.mark.parametrize("name", FAMILIES)
def test_likelihoods_of_every_family(name: str, cache: object) -> None:
    examples = drawn(6)
    run = run_of("lora", model=name)
    model, loaded = loud(run)
    for example, values in zip(examples, inference.answer_and_choose(model, loaded, examples, [e.choices for e in examples], run)[1], strict=True):
        assert values == (pytest.approx(plainly(model, loaded, example, run), abs=1e-4) if example.choices else None)


@pytest.mark.parametrize(("name", "method"), [(name, "lora") for name in FAMILIES] + [(name, m) for name in ("tiny-qwen2-vl", "tiny-qwen3-vl", "tiny-mlp") for m in AHEAD])
def test_the_loss_of_text_is_that_of_its_tokens(name: str, method: str, cache: object) -> None:
    run = run_of(method, model=name)
    model, loaded = loud(run)
    passages = {"a": "one thing and then another", "b": "no"}
    rows = inference.text_loss(model, loaded, passages, run)
    for row, text in zip(rows, passages.values(), strict=True):
        ids = loaded.processor.tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            known = F.log_softmax(model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0].float(), -1)
            said = model(input_ids=ids[:, :-1], attention_mask=torch.ones_like(ids[:, :-1]), use_cache=False).logits[0].float()
        assert said.log_softmax(-1).numpy() == pytest.approx(known[:-1].numpy(), abs=1e-4), "a token is told from what comes after it"
        assert row["nats"] == pytest.approx(-sum(known[i, ids[0, i + 1]].item() for i in range(ids.shape[1] - 1)), abs=1e-3)
        assert row["tokens"] == ids.shape[1] - 1
    assert [row["passage"] for row in rows] == ["a", "b"]


TOGETHER = {"tiny-mlp", "tiny-resampler", "tiny-merger", "tiny-llava", "tiny-llava-onevision", "tiny-smolvlm2", "tiny-idefics3", "tiny-internvl3"}


def on_few_pictures(count: int) -> list[Example]:
    """As `drawn`, on three pictures; the last question has a picture to itself, and two ask the same."""
    made = drawn(count)
    made = [replace(e, image=made[i % 3].image) for i, e in enumerate(made[:-1])] + made[-1:]
    return [*made, replace(made[0], example_id="again")]


@pytest.mark.parametrize(("name", "method"), [(name, "lora") for name in FAMILIES] + [("tiny-mlp", m) for m in sorted({*CORE, *AHEAD} - {"lora"})])
def test_a_picture_that_is_asked_about_often_is_read_once(name: str, method: str, monkeypatch: pytest.MonkeyPatch, cache: object) -> None:
    examples, run = on_few_pictures(16), run_of(method, model=name)
    model, loaded = loud(run)
    read: list[int] = []
    picture = loaded.model.config.image_token_id
    loaded.model.get_input_embeddings().register_forward_hook(lambda _, ids, __: read.append(int((ids[0] == picture).sum()) if ids[0].shape[1] > 1 else 0))

    def found(*, together: bool) -> tuple[list[str], list[list[float] | None], int]:
        with monkeypatch.context() as patch:
            if not together:
                patch.setattr(inference._Asked, "_groups", lambda asked: (list(range(len(asked.examples))), []))
            read.clear()
            return *inference.answer_and_choose(model, loaded, examples, [e.choices for e in examples], run, max_new_tokens=5), sum(read)

    answers, likelihoods, seen = found(together=True)
    alone, known, before = found(together=False)
    assert answers == alone and len(set(answers)) > 3, "in fp32 to the letter"
    for values, those in zip(likelihoods, known, strict=True):
        assert values == (None if those is None else pytest.approx(those, abs=1e-4))
    assert seen == (before * 4 // 17 if name in TOGETHER else before) > 0, "of seventeen questions on four pictures"
    monkeypatch.setattr(inference, "HELD", 1)
    assert inference.answer(model, loaded, examples, run, max_new_tokens=5) == answers, "where one question's keys and values are too many already"


def test_the_passages_are_some_kilobytes_of_named_origin() -> None:
    passages = records.read_passages()
    assert len(passages) == 12 and 4_000 < sum(map(len, passages.values())) < 8_000


def test_what_is_weighed_is_the_options_whatever_the_choices(cache: object) -> None:
    run, examples = run_of("none"), drawn(3)
    model, loaded = loud(run)
    assert inference.answer_and_choose(model, loaded, examples, [()] * 3, run)[1] == [None] * 3
    others = [("yes", "no"), (), ("one", "two", "twenty-one")]
    found = inference.answer_and_choose(model, loaded, examples, others, run)[1]
    assert found[1] is None
    for example, options, values in zip(examples, others, found, strict=True):
        assert not options or values == pytest.approx(plainly(model, loaded, replace(example, choices=options), run), abs=1e-4)
