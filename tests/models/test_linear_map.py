"""A linear map: the identity at first, and what it computes then."""

import pytest
import torch

from metaray.errors import InputError
from metaray.models import LinearMap
from metaray.models.model import build_seeded
from tests.conformance.bench import Bench, Trial, close, episode_of


@pytest.mark.parametrize("rank", [None, 2])
def test_it_begins_as_the_identity(rank: int | None) -> None:
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    plain, unit = (build_seeded(LinearMap(rank=rank, normalized=each), (6,), None, seed=1) for each in (False, True))
    assert torch.equal(plain(x), x)
    torch.testing.assert_close(unit(x), torch.nn.functional.normalize(x))
    parameters = dict(plain.named_parameters())
    assert set(parameters) == ({"body.up"} if rank is None else {"body.up", "body.down"})
    with torch.no_grad():
        parameters["body.up"].normal_(generator=torch.Generator().manual_seed(1))
    matrix = parameters["body.up"] if rank is None else parameters["body.up"] @ parameters["body.down"]
    torch.testing.assert_close(plain(x), x + x @ matrix.T)


def test_in_chunks_with_a_head() -> None:
    bench = Bench(Trial("maml", "classification", "inductive"), model=LinearMap(rank=2))
    chunk = bench.episode(size=2)
    alone = [bench.algorithm.meta_gradient(bench.meta, episode_of(chunk, i), bench.context) for i in range(2)]
    found = bench.algorithm.meta_gradient(bench.meta, chunk, bench.context.with_batched(True))
    for name in bench.meta:
        close(found.gradient[name], alone[0].gradient[name] + alone[1].gradient[name], tolerance=1e-9)
    assert any(float(gradient.abs().max()) > 0 for gradient in found.gradient.values())


def test_a_rank_that_is_none() -> None:
    with pytest.raises(InputError, match="rank 6 is no low one for vectors of 6 numbers"):
        build_seeded(LinearMap(rank=6), (2, 3), None, seed=0)
