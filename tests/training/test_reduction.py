"""The flat buffer, and two real processes against one."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.multiprocessing.spawn import spawn

from metaray.episodes.prefetch import Arrival
from metaray.episodes.sampler import sample_meta_batch, share_of
from metaray.training.experiment import Experiment
from metaray.training.optimizer import Optimizer
from metaray.training.outer_loop import initial_state, outer_loop
from metaray.training.reduction import GroupReducer, LocalReducer, Reducer, flatten, unflatten

MakeExperiment = Callable[..., Experiment]

shapes = st.lists(st.lists(st.integers(0, 3), max_size=3), max_size=4)


@given(shapes, shapes)
def test_flatten_round_trips(gradients: list[list[int]], riders: list[list[int]]) -> None:
    gradient = {str(i): torch.randn(shape) for i, shape in enumerate(gradients)}
    extra = [torch.randn(shape) for shape in (*riders, [1])]
    buffer = flatten(gradient, *extra)
    assert buffer.ndim == 1 and buffer.is_contiguous()
    blank = {name: torch.zeros_like(tensor) for name, tensor in gradient.items()}
    found, rest = unflatten(buffer, blank, *(torch.zeros_like(t) for t in extra))
    assert list(found) == list(gradient)
    assert all(torch.equal(found[name], gradient[name]) for name in gradient)
    assert all(torch.equal(a, b) for a, b in zip(rest, extra, strict=True))


def test_strided_gradients_keep_their_order() -> None:
    gradient = {"w": torch.arange(6.0).view(2, 3).T}
    found, _ = unflatten(flatten(gradient), gradient)
    assert torch.equal(found["w"], gradient["w"])


def test_one_rank_is_its_own_sum() -> None:
    buffer = torch.arange(3.0)
    reducer = LocalReducer()
    assert reducer.sum_(buffer) is buffer and (reducer.rank, reducer.world_size) == (0, 1)


def shares(experiment: Experiment, reducer: Reducer) -> Iterator[Arrival]:
    for step in range(experiment.num_steps):
        indices = share_of(step, experiment.meta_batch_size, reducer.rank, reducer.world_size)
        batch = sample_meta_batch(experiment.source, experiment.episodes, "meta-train", experiment.seed, indices)
        yield Arrival(step, batch, 0.0)


def train(experiment: Experiment, reducer: Reducer, *, stop_at: int | None = None) -> dict[str, torch.Tensor]:
    """The parameters, and losses, scores, norms and stop flags of all steps."""
    state = initial_state(experiment, torch.device("cpu"))
    asked = iter(range(experiment.num_steps))
    stop = lambda: next(asked) == stop_at  # noqa: E731
    steps = list(outer_loop(experiment, state, shares(experiment, reducer), reducer, torch.device("cpu"), stop))
    log = torch.tensor([[s.loss, s.score, s.gradient_norm, float(s.stop)] for s in steps], dtype=torch.float64)
    return {**{name: t.detach() for name, t in state.meta.items()}, "log": log}


def rank_main(rank: int, world_size: int, folder: str) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
    experiment = Experiment.from_json((Path(folder) / "experiment.json").read_text())
    # Only the last rank is asked to stop: all must see it, at the same step.
    found = train(experiment, GroupReducer(), stop_at=1 if rank == world_size - 1 else None)
    save_file({name: t.contiguous() for name, t in found.items()}, f"{folder}/rank{rank}.safetensors")
    dist.destroy_process_group()


def test_two_processes_equal_one(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    # Five episodes: shares of two and three. SGD, because Adam would blow up rounding where gradients are zero.
    optimizer = Optimizer(kind="sgd", outer_lr=0.1, momentum=0.9, clip_norm=0.5)
    experiment = make_experiment(meta_batch_size=5, num_steps=3, optimizer=optimizer)
    (tmp_path / "experiment.json").write_text(experiment.to_json())
    alone = train(experiment, LocalReducer(), stop_at=1)
    spawn(rank_main, args=(2, str(tmp_path)), nprocs=2)  # type: ignore[no-untyped-call]
    ranks = [load_file(tmp_path / f"rank{rank}.safetensors") for rank in range(2)]
    assert alone["log"][:, 3].tolist() == [0, 1, 0]
    for name, tensor in alone.items():
        assert torch.equal(ranks[0][name], ranks[1][name])
        torch.testing.assert_close(ranks[0][name], tensor, rtol=1e-5, atol=1e-6)
