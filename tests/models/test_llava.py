"""LLaVA-1.5 at full size without weights, and checkpoints in LLaVA's own layout."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from peftlab import __main__, features, models, paths
from peftlab.models import CONVERTED, Loaded, ModelCard, llava
from peftlab.records import Example
from peftlab.run import Run

RUN = Run(model="tiny-llava", precision="fp32")
TOTALS = {"llava-1.5-7b": (6_738_415_616, 20_979_712), "llava-1.5-13b": (13_015_864_320, 31_467_520)}


@pytest.mark.parametrize("name", TOTALS)
def test_the_skeleton_has_the_published_size(name: str) -> None:
    loaded = models.skeleton(name)
    counted = dict.fromkeys(("llm", "connector", "vision"), 0)
    for parameter, tensor in loaded.model.named_parameters():
        assert tensor.is_meta
        counted[loaded.towers.part(parameter)] += tensor.numel()
    assert tuple(counted.values()) == (*TOTALS[name], 303_507_456)


def original(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A model's weights as LLaVA's own code would have stored them; written apart from the converter."""
    stored = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("model.vision_tower."):
            name = name.replace("model.vision_tower.", "model.vision_tower.vision_tower.vision_model.")
        elif "multi_modal_projector" in name:
            name = name.replace("multi_modal_projector.linear_1", "mm_projector.0").replace("multi_modal_projector.linear_2", "mm_projector.2")
        stored[name.replace("model.language_model.", "model.")] = tensor.clone()
    return stored


def other(seed: int) -> Loaded:
    """A tiny LLaVA with other weights."""
    loaded = models.load(RUN)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return loaded


def test_a_checkpoint_in_llavas_layout_is_the_same_model(examples: list[Example]) -> None:
    first, second = other(1), other(2)
    pictures = features.encode(first, [examples[0].image])
    asked = pictures.batch([pictures.tokens(examples[0].image, "What is it?")], [examples[0].image])
    stored = original(first.model)
    assert {"model.layers.0.self_attn.q_proj.weight", "model.mm_projector.2.bias", "model.norm.weight", "model.embed_tokens.weight"} <= stored.keys()
    with torch.no_grad():
        assert not torch.allclose(first.model(**asked).logits, second.model(**asked).logits, atol=1e-2)
        llava.convert(stored | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}, second.model)
        assert torch.equal(first.model(**asked).logits, second.model(**asked).logits)


def test_a_checkpoint_without_its_vision_tower_keeps_the_models() -> None:
    first, second = other(1), other(2)
    before = {n: t.clone() for n, t in second.model.model.vision_tower.state_dict().items()}
    llava.convert({n: t for n, t in original(first.model).items() if "vision_tower" not in n}, second.model)
    assert all(torch.equal(t, before[n]) for n, t in second.model.model.vision_tower.state_dict().items())
    assert torch.equal(second.model.model.language_model.norm.weight, first.model.model.language_model.norm.weight)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: s.update({"model.layers.9.mlp.up_proj.weight": torch.zeros(1)}), "model.layers.9.mlp.up_proj.weight has no place in this model"),
        (lambda s: s.update({"transformer.h.0": torch.zeros(1)}), "transformer.h.0 has no place in this model"),
        (lambda s: s.pop("model.mm_projector.0.bias"), "holds nothing for model.multi_modal_projector.linear_1.bias"),
        (lambda s: s.update({"model.norm.weight": torch.zeros(3)}), r"model.language_model.norm.weight is \(3,\) in the checkpoint, the model has \(32,\)"),
    ],
)
def test_another_checkpoint_is_refused(change: object, sentence: str) -> None:
    stored = original(other(1).model)
    change(stored)
    with pytest.raises(ValueError, match=sentence):
        llava.convert(stored, other(2).model)


def stored(loaded: Loaded, folder: Path, *, vision: bool = True, pickled: bool = False) -> Path:
    """A checkpoint folder as LLaVA's code leaves it: two files of tensors and the tokenizer."""
    folder.mkdir()
    tensors = {n: t for n, t in original(loaded.model).items() if vision or "vision_tower" not in n}
    names = sorted(tensors)
    for number, part in enumerate((names[::2], names[1::2])):
        held = {n: tensors[n].contiguous() for n in part}
        torch.save(held, folder / f"pytorch_model-{number}.bin") if pickled else save_file(held, folder / f"model-{number}.safetensors")
    loaded.processor.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The tiny LLaVA as a model that is converted, in a cache of its own."""
    monkeypatch.setitem(models.MODELS, "tiny-llava", ModelCard("tiny-llava", "Tiny", "llava", CONVERTED, "1", "Apache-2.0", ()))
    monkeypatch.setattr(llava, "architecture", lambda name: llava.tiny(name)[0].config)
    monkeypatch.setattr(paths, "cache", lambda: tmp_path / "cache")
    return "tiny-llava"


@pytest.mark.parametrize("pickled", [False, True])
def test_a_folder_in_llavas_layout_becomes_a_model_of_its_card(pickled: bool, tmp_path: Path, request: pytest.FixtureRequest, examples: list[Example]) -> None:
    first = other(1)
    folder = stored(first, tmp_path / "llava", pickled=pickled)
    card = request.getfixturevalue("card")
    with pytest.raises(FileNotFoundError, match="tiny-llava was not converted: download its checkpoint and call"):
        models.load(RUN)
    assert __main__.main(["convert", card, str(folder)]) == 0
    again = models.load(RUN)
    words = len(first.processor.tokenizer)
    rows = again.model.get_input_embeddings().weight
    assert len(rows) == 320 and len(rows) % 64 == 0 and words == 260
    torch.testing.assert_close(rows[words:], rows[:words].mean(0).expand(60, -1))
    made = [one.inputs(examples[0].image, "What is it?") for one in (first, again)]
    assert torch.equal(made[0]["input_ids"], made[1]["input_ids"]) and torch.equal(made[0]["pixel_values"], made[1]["pixel_values"])
    with torch.no_grad():
        torch.testing.assert_close(again.model(**made[1]).logits[..., :words], first.model(**made[0]).logits, atol=1e-6, rtol=0)


def test_a_vision_tower_that_is_kept_apart_is_named(card: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = Loaded(*llava.tiny(card), llava.TOWERS)
    folder = stored(loaded, tmp_path / "llava", vision=False)
    assert __main__.main(["convert", card, str(folder)]) == 2
    assert "holds no vision tower: name the folder of the one it was tuned with (--vision)" in capsys.readouterr().err
    loaded.model.model.vision_tower.save_pretrained(tmp_path / "clip")
    assert __main__.main(["convert", card, str(folder), "--vision", str(tmp_path / "clip")]) == 0
    tower = models.load(RUN).model.model.vision_tower.state_dict()
    assert all(torch.equal(t, tower[n]) for n, t in loaded.model.model.vision_tower.state_dict().items())
    assert __main__.main(["convert", card, str(folder)]) == 2
    assert "is not empty: delete it to convert again" in capsys.readouterr().err


def test_what_needs_no_conversion_or_is_no_checkpoint_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> None:
    assert __main__.main(["convert", "llava-1.5-7b", str(tmp_path)]) == 2
    assert "llava-1.5-7b needs no conversion: it is read from llava-hf/llava-1.5-7b-hf; the models that do are sharegpt4v-7b" in capsys.readouterr().err
    assert __main__.main(["convert", request.getfixturevalue("card"), str(tmp_path)]) == 2
    assert "holds no *.safetensors and no pytorch_model*.bin" in capsys.readouterr().err


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_a_file_of_weights_that_is_empty_or_cut_is_named(pickled: bool, share: float, card: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = stored(Loaded(*llava.tiny(card), llava.TOWERS), tmp_path / "llava", pickled=pickled)
    file = folder / ("pytorch_model-1.bin" if pickled else "model-1.safetensors")
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    assert __main__.main(["convert", card, str(folder)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"peftlab convert: {file} is empty, cut or no file of tensors (") and said.count("\n") == 1


def test_files_without_a_tensor_are_no_checkpoint(card: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({}, tmp_path / "model.safetensors")
    assert __main__.main(["convert", card, str(tmp_path)]) == 2
    assert f"{tmp_path} holds no tensor in model.safetensors: it is not a checkpoint" in capsys.readouterr().err
