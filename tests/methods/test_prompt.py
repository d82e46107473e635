"""Prompt-Tuning: the prompt is in front of the sequence, where its embeddings put there by hand would be."""

from typing import Any

import torch

from peftlab import methods
from peftlab.run import Run

RUN = Run(model="tiny-mlp", method="prompt", precision="fp32", size=3)


def test_the_prompt_is_what_its_embeddings_in_front_would_be(load: Any) -> None:
    """On text alone: positions are counted from the prompt on, and its own are cut from what comes out."""
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    model, plain = methods.attach(load(RUN), RUN).eval(), load(RUN).model.eval()
    with torch.no_grad():
        words = plain.model.language_model.get_input_embeddings()(ids)
        by_hand = plain.model.language_model(inputs_embeds=torch.cat([model.soft_prompt.weight.expand(2, -1, -1), words], dim=1)).last_hidden_state
        torch.testing.assert_close(model.model.language_model(inputs_embeds=words).last_hidden_state, by_hand[:, 3:], atol=1e-5, rtol=0)


def test_the_prompt_starts_as_words_of_the_vocabulary(load: Any) -> None:
    loaded = load(RUN)
    vocabulary = loaded.model.get_input_embeddings().weight.detach().clone()
    prompt = methods.attach(loaded, RUN).soft_prompt.weight
    assert prompt.shape == (3, vocabulary.shape[1])
    assert all((vocabulary == row).all(1).any() for row in prompt.detach())
