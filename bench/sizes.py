"""Steps of models at their real size, with random weights, on a GPU: seconds beside peft's as documented, and peak memory beside the ledger's forecast.

What is left of a step's cost does not depend on what the weights hold. Pictures go through the whole vision tower at its real resolution.
"""

import gc
from collections.abc import Callable
from typing import Any

import torch

from bench.pairs import Pair
from bench.steps import plain_lora, stepping
from peftlab import datasets, features, ledger, loading, methods, training
from peftlab.models import Loaded, llava
from peftlab.run import Run

BATCH, STEPS, ROUNDS = 4, 2, 3
CASES: tuple[dict[str, Any], ...] = (
    {"model": "llava-1.5-7b", "method": "lora"},
    {"model": "llava-1.5-7b", "method": "lora", "quantisation": "nf4"},
    {"model": "llava-1.5-7b", "method": "lora", "quantisation": "int8"},
    {"model": "llava-1.5-7b", "method": "lora", "checkpointing": True},
    {"model": "llava-1.5-7b", "method": "lora", "connector": "tuned"},
    {"model": "llava-1.5-7b", "method": "ia3"},
    {"model": "llava-1.5-7b", "method": "adapter"},
    {"model": "llava-1.5-7b", "method": "prefix"},
    {"model": "llava-1.5-7b", "method": "last_layers", "layers": 2, "connector": "tuned"},
    {"model": "llava-1.5-13b", "method": "lora"},
    {"model": "llava-1.5-13b", "method": "lora", "quantisation": "nf4"},
)
PEER = ({}, {"quantisation": "nf4"})  # of these LoRA is measured beside peft's, on the same frozen weights


def measure() -> list[Pair]:
    """Seconds a step and the GPU's peak bytes, of every case; nothing where there is no GPU."""
    if not torch.cuda.is_available():
        print("bench: sizes needs a GPU, so it is left out")
        return []
    examples = list(datasets.load("icons_choice", "train", BATCH * STEPS))
    return [pair for case in CASES for pair in _measured(Run(**case, steps=STEPS, batch_size=BATCH), examples, case)]


def _measured(run: Run, examples: list, case: dict[str, Any]) -> list[Pair]:
    ours, batches, tokens = _ready(run, examples, lambda loaded: methods.attach(loaded, run))
    what = " ".join(str(value) if name not in ("checkpointing", "connector", "layers") else f"{name}={value}" for name, value in case.items())
    seconds, peak = _timed(ours)
    forecast = ledger.expected(run, tokens=tokens)["bytes"]
    whole = sum(forecast[name] for name in ("weights", "gradients", "optimiser", "activations")) / 1e9
    note = f"{BATCH} sequences of {tokens} tokens; {BATCH * tokens / min(seconds):.0f} tokens/s"
    found = [Pair(f"peak memory: {what}", [peak], [whole], "the ledger's forecast", unit="GB", note=note)]
    del ours, batches
    _emptied()
    if run.method == "lora" and {k: v for k, v in case.items() if k not in ("model", "method")} in PEER:
        peer, _, _ = _ready(run, examples, lambda loaded: plain_lora(loaded, run), whole=True)
        theirs, most = _timed(peer)
        found.append(Pair(f"a step: {what}", seconds, theirs, "peft's LoRA on the same linears, logits everywhere", note=note))
        found.append(Pair(f"peak memory: {what}", [peak], [most], "peft's LoRA on the same linears, logits everywhere", unit="GB"))
        del peer
        _emptied()
    return found


def _ready(run: Run, examples: list, attach: Callable[[Loaded], Any], *, whole: bool = False) -> tuple[Callable[[], float], list, int]:
    """What measures a step of the attached model, its batches, and the tokens of the longest sequence."""
    loaded = _random(run)
    model = attach(loaded)
    if run.checkpointing:
        loaded.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    pictures = features.encode(loaded, [e.image for e in examples])
    items = training.tokenise(pictures, examples)
    batches = [items[start : start + BATCH] for start in range(0, len(items), BATCH)]
    return stepping(model, pictures, batches, whole=whole), batches, max(len(item.ids) for item in items)


def _timed(step: Callable[[], float]) -> tuple[list[float], float]:
    """Seconds a step, a few times after a first that is not counted, and the peak in GB."""
    step()
    torch.cuda.reset_peak_memory_stats()
    return [step() for _ in range(ROUNDS)], torch.cuda.max_memory_allocated() / 1e9


def _random(run: Run) -> Loaded:
    """The model of `run` at its published size on the GPU, weights at random, LLM packed as the run says; a byte tokenizer."""
    config = llava.architecture(run.model)
    config.text_config.vocab_size, config.image_token_index, config.image_seq_length = 32064, 3, (config.vision_config.image_size // config.vision_config.patch_size) ** 2
    config._attn_implementation = loading.best_attention()
    usual = torch.get_default_dtype()
    torch.set_default_dtype(loading.DTYPES[run.precision])
    try:
        with torch.device("cuda"):
            model = llava.LlavaForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(usual)
    loading.quantise(model, llava.TOWERS, run.quantisation)
    tokenizer = loading.byte_tokenizer(["<s>", "</s>", "<pad>", "<image>"], bos="<s>", eos="</s>", pad="<pad>")
    return Loaded(model.eval().requires_grad_(False), llava._processor(tokenizer, config), llava.TOWERS)


def _emptied() -> None:
    gc.collect()
    torch.cuda.empty_cache()
