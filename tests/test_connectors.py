"""The pocket family's own connectors: shapes, places, and what each token can see."""

import pytest
import torch

from peftlab import connectors, ledger, methods, models
from peftlab.connectors import Merger, Resampler
from peftlab.models import pocket
from peftlab.run import Run


def test_a_merged_token_sees_its_four_cells_and_no_other() -> None:
    torch.manual_seed(0)
    merger = Merger(7, 32, cells=6, tokens=3)
    x = torch.randn(1, 36, 7, requires_grad=True)
    out = merger(x)
    assert out.shape == (1, 9, 32)
    out[0, 5].sum().backward()  # second row, third column of tokens
    seen = {divmod(i, 6) for i in x.grad[0].abs().sum(-1).nonzero().flatten().tolist()}
    assert seen == {(2, 4), (2, 5), (3, 4), (3, 5)}


def test_cells_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="5 x 5 cells do not merge two by two into 3 x 3 tokens"):
        Merger(7, 32, cells=5, tokens=3)


def test_a_resampler_is_attention_over_all_cells() -> None:
    """Against the sums written out, head by head."""
    torch.manual_seed(0)
    one = Resampler(7, 32, cells=5, tokens=4)
    x = torch.randn(2, 25, 7)
    queries = one.queries + connectors.places(4, width=16, device=x.device)
    keys = x @ one.key.weight.T + one.key.bias + connectors.places(5, width=16, device=x.device)
    values = x @ one.value.weight.T + one.value.bias
    heads = []
    for h in range(connectors.HEADS):
        q, k, v = queries[:, 4 * h : 4 * h + 4], keys[..., 4 * h : 4 * h + 4], values[..., 8 * h : 8 * h + 8]
        heads.append(torch.softmax(q @ k.transpose(1, 2) / 4**0.5, dim=-1) @ v)
    torch.testing.assert_close(one(x), torch.cat(heads, -1) @ one.out.weight.T + one.out.bias)


def test_places_that_are_near_are_alike() -> None:
    """On grids of any side: the cell that is most like a place of another grid is the one that lies nearest."""
    coarse, fine = (connectors.places(side, width=192, device=torch.device("cpu")) for side in (4, 5))
    for i, row in enumerate(coarse @ fine.T):
        y, x = ((v + 0.5) / 4 for v in divmod(i, 4))
        distance = torch.tensor([((r + 0.5) / 5 - y) ** 2 + ((c + 0.5) / 5 - x) ** 2 for r in range(5) for c in range(5)])
        assert distance[row.argmax()] == distance.min()


@pytest.mark.parametrize("name, tokens", [("pocket-mlp", 25), ("pocket-resampler", 16), ("pocket-merger", 9)])
def test_a_delta_stays_below_seven_megabytes(name: str, tokens: int) -> None:
    skeleton = models.skeleton(name)
    assert skeleton.model.config.image_seq_length == tokens
    connector = sum(p.numel() for n, p in skeleton.model.named_parameters() if skeleton.towers.in_connector(n))
    widths = [(576, 576), (576, 192), (1536, 576)]  # q, v and down: in, out
    updates = 30 * pocket.SHAPES[name].rank * sum(a + b for a, b in widths)
    assert 2 * (connector + updates) <= 6_990_000


@pytest.mark.parametrize("name", ["tiny-mlp", "tiny-resampler", "tiny-merger"])
def test_a_fresh_connector_is_a_function_of_its_seed(name: str) -> None:
    model = pocket.tiny(name, seed=0).model
    first, same, other = (pocket.connector(model, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[n], same[n]) for n in first) and any(not torch.equal(first[n], other[n]) for n in first)
    counted = ledger.count(methods.attach(models.load(run := Run(model=name, method="connector", connector="tuned")), run), pocket.TOWERS)
    assert counted.loc[counted["trainable"] > 0, "tower"].tolist() == ["connector"]
