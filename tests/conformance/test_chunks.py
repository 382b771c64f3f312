"""Episodes that are mapped over together give what they give one by one; low precision gives about the same."""

from dataclasses import replace

import pytest
import torch

from metaray.models import MLP, Conv4
from tests.conformance.bench import Bench, Trial, close, episode_of, every


@every(trained=True)
def test_a_chunk_equals_its_episodes_one_by_one(trial: Trial) -> None:
    bench = Bench(trial)
    chunk = bench.episode(size=3)
    batched = bench.algorithm.meta_gradient(bench.meta, chunk, bench.context.with_batched(True))
    singles = [bench.algorithm.meta_gradient(bench.meta, episode_of(chunk, i), bench.context) for i in range(3)]
    close(batched.outcome.loss, torch.cat([single.outcome.loss for single in singles]))
    close(batched.outcome.score, torch.cat([single.outcome.score for single in singles]))
    for name in bench.meta:
        close(batched.gradient[name], torch.stack([single.gradient[name] for single in singles]).sum(0))


@every()
def test_a_chunk_is_judged_like_its_episodes(trial: Trial) -> None:
    bench = Bench(trial, training=False)
    chunk = bench.episode(size=3, queries=4)
    with torch.no_grad():
        batched = bench.algorithm.outcomes(bench.meta, chunk, bench.context.with_batched(True))
        singles = [bench.algorithm.outcomes(bench.meta, episode_of(chunk, i), bench.context) for i in range(3)]
    close(batched.loss, torch.cat([single.loss for single in singles]))
    # An area under a curve jumps where rounding decides which of two equal logits is the greater one.
    pair = 1 / 16 if trial.task == "binary" else 1e-10
    close(batched.score, torch.cat([single.score for single in singles]), tolerance=pair)


@every(tasks=["classification"])
@pytest.mark.parametrize(
    ("downsample", "size", "channels_last"),
    [("max_pool", None, False), ("max_pool", 2, True), ("stride", None, True), ("stride", 2, False)],
)
def test_half_precision_is_finite_and_near(
    trial: Trial, downsample: str, size: int | None, channels_last: bool
) -> None:
    model = Conv4.parse({"channels": 4, "downsample": downsample}, where="conv4")
    near(Bench(trial, model=model, feature=(1, 32, 32), dtype=torch.float32), size, channels_last)


@every(tasks=["regression"])
@pytest.mark.parametrize("size", [None, 2])
def test_half_precision_is_finite_and_near_for_values(trial: Trial, size: int | None) -> None:
    near(Bench(trial, model=MLP(hidden=(8, 8)), dtype=torch.float32), size, channels_last=False)


def near(bench: Bench, size: int | None, channels_last: bool) -> None:
    chunk = bench.episode(dtype=torch.float32, size=size)
    exact = bench.context.with_batched(size is not None)
    half = replace(exact, precision="bfloat16", channels_last=channels_last)
    losses = [bench.algorithm.outcomes(bench.meta, chunk, context).loss for context in (exact, half)]
    assert losses[1].dtype == torch.float32
    torch.testing.assert_close(losses[1], losses[0], rtol=0.3, atol=0.3)
    if bench.meta:
        gradient = bench.algorithm.meta_gradient(bench.meta, chunk, half).gradient
        assert all(t.isfinite().all() and t.dtype == torch.float32 for t in gradient.values())
