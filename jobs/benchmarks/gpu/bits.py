"""The same bits: of a step that is done again, of any number of workers, after a stop."""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import torch
from torch import Tensor

from jobs.benchmarks.gpu.experiments import Network, experiment_of, networks
from jobs.benchmarks.gpu.record import Values
from jobs.benchmarks.gpu.section import Case, Section, Setting, Wrong
from jobs.benchmarks.ranks import Threads
from jobs.benchmarks.trials import TRAINED, Bench, Trial, moved
from metaray.algorithms import MAML, Algorithm, ProtoNet
from metaray.algorithms.context import Tensors
from metaray.config import replace
from metaray.episodes.prefetch import Arrival
from metaray.episodes.sampler import sample_meta_batch, share_of
from metaray.errors import RunStopped
from metaray.experiment.experiment import Experiment
from metaray.models import Conv4
from metaray.records.events import Fanout
from metaray.records.result import parameters_sha256, read_result
from metaray.records.storage import Storage
from metaray.records.train_state import TrainState
from metaray.training.device import set_execution
from metaray.training.in_process import InProcess
from metaray.training.outer_loop import chunk_size_of, initial_state, outer_loop
from metaray.training.place import Extent
from metaray.training.reduction import GroupReducer, LocalReducer, Reducer

STEPS, EPISODES, CHUNK = 2, 8, 2
MAML_BITS = MAML(inner_lr=0.05, inner_steps=2, batch_norm="transductive")
PROTONET_BITS = ProtoNet(batch_norm="inductive")

ABOUT = f"""SHA-256 of the meta-parameters after {STEPS} outer steps (its first digits), which must not depend on when \
they are taken or on how many workers share the chunks. Workers are threads here, each with the state and the share of \
a rank; the exact reduction is the platform's own, on buffers of the device, over a group that carries tensors from \
thread to thread. A run that is stopped after a checkpoint and gone on with ends as one that was not. Another seed \
must give another digest. Of every algorithm the meta-gradient of a chunk is taken twice."""


def cases(setting: Setting) -> Iterator[Case]:
    """What may change bits on a GPU: the network's kernels, the precision, the algorithm's own operations."""
    known = networks(setting)
    conv4, strided, resnet12 = known["Conv4"], known["Conv4, strided"], known["ResNet-12"]
    kinds = [
        (conv4, "float32", (1, 2, 4)),
        (resnet12, "bfloat16", (1, 2)),
        (conv4, "bfloat16", (1, 2, 4)),
        (resnet12, "float32", (1, 2, 4)),
        (strided, "float32", (1, 2, 3)),
    ]
    for network, dtype, worlds in kinds[:2] if setting.small else kinds:
        # Four chunks: of 3 workers not the same share for each.
        batch = network._replace(meta_batch_size=EPISODES)
        experiment = experiment_of(setting, batch, MAML_BITS, chunk_size=CHUNK, dtype=dtype, num_steps=STEPS)
        name = f"MAML, {network.name}, {dtype}"
        yield Case(f"{name}: {_listed(worlds)} workers", partial(shared_out, experiment, worlds, setting))
    yield _resumed(setting, conv4, MAML_BITS, "MAML")
    if not setting.small:
        yield _resumed(setting, resnet12, PROTONET_BITS, "ProtoNet")
    for kind in TRAINED:
        yield Case(f"{kind}: its gradient twice", partial(twice, kind, setting))


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"


def _resumed(setting: Setting, network: Network, algorithm: Algorithm, name: str) -> Case:
    experiment = experiment_of(setting, network, algorithm, num_steps=2 * STEPS)
    return Case(f"{name}, {network.name}: stopped and gone on with", partial(resumed, experiment, setting))


def shared_out(experiment: Experiment, worlds: tuple[int, ...], setting: Setting) -> Values:
    """Digests of one worker, of it again, of several, and of another seed.

    Raises:
        Wrong: if two differ that should not, or agree that should not.
    """
    set_execution(experiment, setting.device)
    found = {"again": trained(experiment, setting, 1)[0]}
    for world_size in worlds:
        digests = trained(experiment, setting, world_size)
        found |= {f"{world_size} workers, rank {rank}": digest for rank, digest in enumerate(digests)}
    other = trained(replace(experiment, seed=1), setting, 1)[0]
    values: Values = {"sha256": found["again"][:12], "digests": len(set(found.values())), "compared": len(found)}
    if len(set(found.values())) > 1:
        raise Wrong("; ".join(f"{name}: {digest[:12]}" for name, digest in found.items()), values)
    if other in found.values():
        raise Wrong("another seed gives the same digest", values)
    return values


def trained(experiment: Experiment, setting: Setting, world_size: int) -> list[str]:
    """The digest on each rank after all steps."""
    # Here, not in the threads: initial weights are drawn from a generator that all threads share.
    states = [initial_state(experiment, setting.device) for _ in range(world_size)]
    if world_size == 1:
        return [after(experiment, states[0], setting, LocalReducer())]

    def work() -> str:
        torch.set_num_threads(experiment.threads_per_worker)  # a setting of the thread's own
        reducer = GroupReducer()
        return after(experiment, states[reducer.rank], setting, reducer)

    return Threads(world_size).run(work)


def after(experiment: Experiment, state: TrainState, setting: Setting, reducer: Reducer) -> str:
    """The digest after all steps, as one rank comes to it."""
    device, size = setting.device, experiment.meta_batch_size
    chunk_size = chunk_size_of(experiment, device)

    def arrivals() -> Iterator[Arrival]:
        for step in range(experiment.num_steps):
            share = share_of(step, size, reducer.rank, reducer.world_size, chunk_size=chunk_size)
            source, episodes = experiment.source, experiment.episodes
            yield Arrival(step, sample_meta_batch(source, episodes, "meta-train", experiment.seed, share), 0.0)

    for _ in outer_loop(experiment, state, arrivals(), reducer, device):
        pass
    return parameters_sha256(state.meta)


def resumed(experiment: Experiment, setting: Setting) -> Values:
    """Digests of a run that was left alone and of one that was stopped half-way.

    Raises:
        Wrong: if they differ.
    """
    where = f"{experiment.algorithm.kind}-{experiment.model.kind}"
    device, quiet = setting.device.type, Fanout([])
    whole, halved = (Storage(str(setting.scratch / where / name)) for name in ("whole", "halved"))
    place = InProcess(device)
    place.train(experiment, whole, quiet)
    with suppress(RunStopped):
        place.train(experiment, halved, quiet, Extent(until=STEPS))
    place.train(experiment, halved, quiet)
    alone, on = (read_result(storage).parameters_sha256 for storage in (whole, halved))
    values: Values = {"sha256": alone[:12], "digests": len({alone, on}), "compared": 2}
    if alone != on:
        raise Wrong(f"left alone: {alone[:12]}; gone on with: {on[:12]}", values)
    return values


def twice(kind: str, setting: Setting) -> Values:
    """Whether the gradient of a chunk has the same bits when it is taken again.

    Raises:
        Wrong: if not.
    """
    differ = [name for name, (a, b) in _pairs(kind, setting) if not torch.equal(a, b)]
    if differ:
        raise Wrong(f"other bits the second time in {', '.join(differ)}", {"digests": 2, "compared": 2})
    return {"digests": 1, "compared": 2}


def _pairs(kind: str, setting: Setting) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    side = 16 if setting.small else 28
    bench = Bench(
        Trial(kind, "classification", "transductive"),
        ways=5,
        model=Conv4(channels=4 if setting.small else 64),
        feature=(1, side, side),
        dtype=torch.float32,
        device=setting.device,
    )
    chunk = moved(bench.episode(size=2 if setting.small else 8, dtype=torch.float32), setting.device, torch.float32)

    def taken() -> Tensors:
        return bench.algorithm.meta_gradient(bench.meta, chunk, bench.context.with_batched(True)).gradient

    first, second = taken(), taken()
    return ((name, (first[name], second[name])) for name in bench.meta)


SECTION = Section("bits", ABOUT, cases)
