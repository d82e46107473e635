"""What a batch holds: a sequence per question, or several questions on one picture as turns."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from peftlab import features, methods, training
from peftlab.models import Loaded, pocket
from peftlab.records import Example
from peftlab.run import Run

GREY, RED = Image.new("RGB", (160, 160), "grey"), Image.new("RGB", (160, 160), "red")


def asked(number: int, image: Image.Image, question: str, answer: str) -> Example:
    """A question on a picture."""
    return Example(f"e{number}", f"p{number}", image, question, (answer,), "t", 0, "a")


TALK = [asked(0, GREY, "What is it?", "fog"), asked(1, RED, "And this?", "a rose"), asked(2, GREY, "Is it thick?", "no"), asked(3, GREY, "Why?", "wind")]


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return pocket.ready(pocket.tiny(seed=0), precision="fp32", quantisation="none")


def encoded(loaded: Loaded) -> features.Features:
    """The pictures of the conversation as the model takes them in."""
    return features.encode(loaded, [GREY, RED])


def answers(loaded: Loaded, item: training._Item) -> str:
    """What the labels of a sequence say, end-of-turn marks as bars."""
    said = [i for i, label in zip(item.ids, item.labels, strict=True) if label != training.IGNORE]
    assert all(label in (training.IGNORE, i) for i, label in zip(item.ids, item.labels, strict=True))
    return loaded.processor.tokenizer.decode(said).replace("<|im_end|>", "|")


def test_questions_on_one_picture_share_a_sequence(loaded: Loaded) -> None:
    items = training.tokenise(encoded(loaded), TALK, turns=2)
    assert [answers(loaded, i) for i in items] == ["fog|no|", "wind|", "a rose|"]
    picture = loaded.processor.tokenizer.convert_tokens_to_ids(pocket.IMAGE_TOKEN)
    assert [i.ids.count(picture) for i in items] == [25, 25, 25]
    assert [i.image for i in items] == [GREY, GREY, RED]


def test_alone_every_question_is_a_sequence(loaded: Loaded) -> None:
    assert sorted(answers(loaded, i) for i in training.tokenise(encoded(loaded), TALK)) == ["a rose|", "fog|", "no|", "wind|"]


def test_the_first_turn_is_learned_as_it_is_alone(loaded: Loaded) -> None:
    pictures, run = features.encode(loaded, [GREY]), Run(model="tiny-mlp", precision="fp32")
    together = training.tokenise(pictures, [TALK[0], TALK[2]], turns=2)
    (alone,) = training.tokenise(pictures, [TALK[0]])
    first = training._Item(together[0].ids, alone.labels + [training.IGNORE] * (len(together[0].ids) - len(alone.ids)), GREY)
    device = torch.device("cpu")
    with torch.no_grad():
        in_talk, by_itself = (training._loss(loaded.model, [item], pictures, device) for item in (first, alone))
    torch.testing.assert_close(in_talk, by_itself, atol=1e-5, rtol=1e-5)
    assert training.answer_loss(loaded.model, loaded, [TALK[0]], run) == pytest.approx(by_itself.item(), abs=1e-5)


def test_a_template_that_rewrites_earlier_turns_is_refused(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    forgetful = "{{ messages | length }}" + loaded.processor.chat_template
    monkeypatch.setattr(loaded.processor, "chat_template", forgetful)
    with pytest.raises(ValueError, match="does not keep earlier turns"):
        training.tokenise(encoded(loaded), TALK, turns=2)
    with pytest.raises(ValueError, match="turns is 0"):
        training.tokenise(encoded(loaded), TALK, turns=0)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("method", [m for m in methods.METHODS if m != "none"])
def test_every_method_trains_under_the_guards(method: str, precision: str, tmp_path: Path, sizes: dict[str, int]) -> None:
    run = Run(model="tiny-mlp", method=method, connector="tuned", precision=precision, steps=4, batch_size=2, size=sizes.get(method))
    fresh = [pocket.ready(pocket.tiny(seed=0), precision=precision, quantisation="none") for _ in range(2)]
    model = methods.attach(fresh[0], run)
    log = training.finetune(model, fresh[0], TALK, run, progress=False)
    assert len(log.steps) == 4 and log.steps["loss"].notna().all()
    training.save(model, tmp_path)
    again = methods.settled(fresh[1], run)
    training.restore(again, tmp_path)
    picture = {"input_ids": torch.tensor([[0, 5, *[2] * 25, 7, 9]]), "pixel_values": torch.ones(1, 25, 16)}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        assert torch.equal(model(**picture).logits, again.eval()(**picture).logits)


def test_logits_are_of_answer_tokens_alone_and_the_loss_is_of_all(loaded: Loaded) -> None:
    """A sequence of one turn beside one of two, so that answers stand in different columns."""
    pictures = features.encode(loaded, [e.image for e in TALK])
    items = training.tokenise(pictures, TALK, turns=2)
    assert len({len(item.ids) for item in items}) > 1
    asked, head, device = [], loaded.model.get_output_embeddings(), torch.device("cpu")
    handle = head.register_forward_hook(lambda _, inputs, logits: asked.append(logits.shape[:-1].numel()))
    with torch.no_grad():
        loss = training._loss(loaded.model, items, pictures, device)
        logits = loaded.model(**pictures.batch([{"input_ids": i.ids} for i in items], [i.image for i in items])).logits
    handle.remove()
    labels = torch.nn.utils.rnn.pad_sequence([torch.tensor(i.labels) for i in items], batch_first=True, padding_value=training.IGNORE)
    assert asked[0] == (labels != training.IGNORE).sum() and asked[1] == labels.numel(), "the hook stayed, or was never there"
    plain = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)


def held(model: torch.nn.Module, loaded: Loaded, run: Run) -> tuple[float, int]:
    """The last loss of a short training, and the most bytes that one forward pass kept for the backward pass."""
    sizes = [0]

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        sizes[-1] += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        handle = model.register_forward_pre_hook(lambda *_: sizes.append(0))
        log = training.finetune(model, loaded, TALK, run, progress=False)
        handle.remove()
    return log.steps["loss"].iloc[-1], max(sizes)


@pytest.mark.parametrize("method", [m for m, card in methods.METHODS.items() if card.checkpoints and m != "none"])
def test_checkpointing_keeps_less_and_changes_nothing(method: str, sizes: dict[str, int]) -> None:
    found = []
    for checkpointing in (False, True):
        run = Run(model="tiny-mlp", method=method, connector="tuned", precision="fp32", steps=8, batch_size=2, size=sizes.get(method), checkpointing=checkpointing)
        fresh = pocket.ready(pocket.tiny(seed=0), precision="fp32", quantisation="none")
        model = methods.attach(fresh, run)
        found.append(held(model, fresh, run))
        assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules()), "it stays on after training"
    (loss, bytes_kept), (same, fewer) = found
    assert same == pytest.approx(loss, rel=1e-6)
    assert fewer < 0.8 * bytes_kept


def test_lora_plus_gives_b_sixteen_times_the_rate(loaded: Loaded) -> None:
    run = Run(model="tiny-mlp", method="lora_plus", connector="tuned", precision="fp32", lr=1e-3, connector_lr=1e-4)
    fresh = pocket.ready(pocket.tiny(seed=0), precision="fp32", quantisation="none")
    groups = training._groups(methods.attach(fresh, run), fresh, run)
    assert [(g["name"], g["lr"]) for g in groups] == [("connector", 1e-4), ("method", 1e-3), ("method", 1.6e-2)]
