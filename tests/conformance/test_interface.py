"""What every algorithm must do with its arguments, whatever it computes."""

import dataclasses
import json

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, jaxtyped
from torch import Tensor

from metaray.algorithms import ALGORITHMS, Algorithm
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.errors import InputError
from metaray.imports import dump_kind, parse_kind
from metaray.models.batch_norm import EpisodicBatchNorm
from metaray.training.live_memory import LiveMemory
from tests.conformance.bench import Bench, Trial, every


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_kind_is_its_key(kind: str) -> None:
    assert ALGORITHMS[kind].kind == kind
    with pytest.raises(ValueError, match="frozen"):
        ALGORITHMS[kind]().batch_norm = "inductive"  # type: ignore[misc]


@every()
def test_the_description_round_trips_through_json(trial: Trial) -> None:
    for algorithm in (ALGORITHMS[trial.kind](), Bench(trial).algorithm):
        text = json.dumps(dump_kind(algorithm, ALGORITHMS))
        assert parse_kind(json.loads(text), ALGORITHMS, Algorithm, what="algorithm") == algorithm


@every()
@pytest.mark.parametrize(("size", "shots", "queries"), [(2, 1, 1), (3, 2, 1), (5, 3, 4)])
def test_shapes(trial: Trial, size: int, shots: int, queries: int) -> None:
    """Several ways, or sizes of a target."""
    bench = Bench(trial, ways=size, target_size=size)
    episode = bench.episode(shots=shots, queries=queries)
    count, outputs = len(episode.query.y), bench.task_shape.outputs

    @jaxtyped(typechecker=beartype)
    def output_of(bench: Bench, episode: TensorEpisode) -> Float[Tensor, f"{count} {outputs}"]:
        return bench.output(episode.support, episode.query.x)

    assert output_of(bench, episode).isfinite().all()
    outcome = bench.algorithm.loss(bench.meta, episode, bench.context)
    assert outcome.loss.shape == outcome.score.shape == () and not outcome.score.requires_grad
    assert float(outcome.score) >= 0 and (trial.task == "regression" or float(outcome.score) <= 1)


@every()
def test_one_query(trial: Trial) -> None:
    """Possible where it is normalised with the support, or not at all with its like; refused else."""
    bench = Bench(trial, training=False)
    episode = bench.episode()
    try:
        found = bench.output(episode.support, episode.query.x[:1])
    except InputError as refusal:
        assert trial.protocol == "transductive" and "batch norm over a single example" in str(refusal)
    else:
        assert len(found) == 1 and found.isfinite().all()


@every(tasks=["classification", "binary"])
def test_unequal_support_classes(trial: Trial) -> None:
    bench = Bench(trial)
    episode = bench.episode(shots=3)
    uneven = Examples(episode.support.x[:-2], episode.support.y[:-2])
    assert bench.output(uneven, episode.query.x).isfinite().all()
    outcome = bench.algorithm.loss(bench.meta, episode._replace(support=uneven), bench.context)
    assert outcome.loss.isfinite()


@every()
@pytest.mark.parametrize("training", [True, False])
def test_inputs_meta_and_network_are_left_alone(trial: Trial, training: bool) -> None:
    bench = Bench(trial, training=training)
    episode = bench.episode()
    meta, network = bench.meta.copy(), bench.context.network
    given = [*meta.values(), *episode.support, *episode.query, episode.seed, episode.classes]
    given += network.state_dict().values()
    before = [tensor.detach().clone() for tensor in given]
    bench.algorithm.loss(bench.meta, episode, bench.context)
    if training and meta:
        bench.algorithm.meta_gradient(bench.meta, episode, bench.context)
    assert meta == bench.meta
    assert all(torch.equal(a, b) for a, b in zip(before, given, strict=True))
    assert all(tensor.grad is None and tensor.is_leaf for tensor in meta.values())
    for module in network.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
        if isinstance(module, EpisodicBatchNorm):
            assert module.statistics is None and module.recorded is None and not module.record


@every()
def test_a_call_repeats_its_bits(trial: Trial) -> None:
    bench = Bench(trial, dtype=torch.float32)
    episode = bench.episode(dtype=torch.float32)
    once, again = (bench.output(episode.support, episode.query.x) for _ in range(2))
    assert torch.equal(once, again)
    again = Bench(trial, dtype=torch.float32).output(episode.support, episode.query.x)
    assert torch.equal(once, again)


@every()
def test_judging_builds_no_graph(trial: Trial) -> None:
    bench = Bench(trial, training=False)
    episode = bench.episode()
    meta = {name: t.detach() for name, t in bench.meta.items()}
    with torch.no_grad():
        adapted = bench.algorithm.adapt(meta, episode.support, bench.context)
        output = bench.algorithm.predict(meta, adapted, episode.query.x, bench.context)
    assert not any(t.requires_grad for t in [*adapted.values(), output])


@every(steps=True, tasks=["classification"])
@pytest.mark.parametrize("size", [None, 2])
def test_judging_takes_no_more_memory_for_more_inner_steps(trial: Trial, size: int | None) -> None:
    """A graph that stays alive from step to step would."""
    bench = Bench(trial, training=False)
    episode = bench.episode(size=size, queries=30)
    meta = {name: t.detach() for name, t in bench.meta.items()}

    def height(inner_steps: int) -> int:
        context = dataclasses.replace(bench.context.of(episode), inner_steps=inner_steps)
        with torch.no_grad(), LiveMemory() as memory:
            outcome = bench.algorithm.outcomes(meta, episode, context)
        assert outcome.loss.grad_fn is None and outcome.score.grad_fn is None
        return int(memory.most_bytes)

    height(1)
    assert height(12) <= 1.2 * height(2)


@every(trained=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [None, 2])
def test_gradients_have_the_type_of_the_parameters(trial: Trial, dtype: torch.dtype, size: int | None) -> None:
    bench = Bench(trial, dtype=dtype)
    episode = bench.episode(dtype=dtype, size=size)
    found = bench.algorithm.meta_gradient(bench.meta, episode, bench.context.with_batched(size is not None))
    assert list(found.gradient) == list(bench.meta)
    for name, tensor in found.gradient.items():
        assert tensor.dtype == dtype and tensor.shape == bench.meta[name].shape and not tensor.requires_grad, name
    assert found.outcome.loss.dtype == found.outcome.score.dtype == dtype
    assert found.outcome.loss.shape == found.outcome.score.shape == (size or 1,)
