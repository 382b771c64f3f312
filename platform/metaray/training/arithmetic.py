"""What an experiment amounts to, in numbers, before it is trained: tasks, episodes, parameters, memory, time."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from metaray.algorithms.context import Tensors
from metaray.data.draws import SPLITS, Split
from metaray.data.inputs import parts_of
from metaray.data.task import shape_of
from metaray.episodes.sampler import sample_episode, sample_meta_batch
from metaray.episodes.tensors import TensorEpisode, chunks
from metaray.experiment.chunking import chunk_sizes, workers_at_most
from metaray.experiment.experiment import Experiment
from metaray.models.model import seeded
from metaray.models.state import kept
from metaray.optimizers.stepping import update
from metaray.records.optimizer_state import pack_optimizer
from metaray.records.train_state import TrainState
from metaray.training.device import set_execution
from metaray.training.execution.strategy import Strategy
from metaray.training.outer_loop import chunk_size_of, context_of, initial_state
from metaray.training.room import COPIES, gpu_episode_bytes, peak_bytes

CPU = torch.device("cpu")
MOST_TIMES, ENOUGH_S = 5, 0.5
"""How often a chunk is computed to see how long it takes."""
LOOKED_AT, TIMED = 32, 8
"""Episodes whose sizes are looked at, for the largest; and of unequal ones those that are timed, in the mean."""


@dataclass(frozen=True)
class Arithmetic:
    """What training an experiment takes.

    Attributes:
        classes: Number of classes of each meta-split, rotations counted; all 0 where tasks have none of their own.
        tasks: Number of distinct tasks of each meta-split, labels and order aside.
        train_episodes: Number of episodes that are trained on.
        val_episodes: Number of episodes of meta-val that are judged, over all evaluations while it trains.
        test_episodes: Number of episodes of meta-test that are judged at the end, each several times: as trained,
            before training and so on.
        parameters: How many meta-parameters each part has, by the first word of their names.
        frozen: Numbers in frozen parameters and persistent buffers.
        parameters_bytes: Size of the meta-parameters.
        optimizer_bytes: Size of the optimiser's state.
        checkpoint_bytes: Size of a checkpoint at most, with the best meta-parameters beside the current ones.
        episode_bytes: Tensors that live at the height of the meta-gradient, of each episode mapped over at once; of
            unequal ones that of the largest among the first.
        gpu_episode_bytes: The same on a GPU, where convolutions of many at once are unfolded.
        chunk_sizes: Number of episodes that are mapped over at once, by type of device.
        most_workers: Number of workers that can take part, by type of device.
        episode_s: Processor time that the meta-gradient of an episode took here, among as many at once on a CPU; of
            unequal ones the mean of the first.
    """

    classes: dict[Split, int]
    tasks: dict[Split, int]
    train_episodes: int
    val_episodes: int
    test_episodes: int
    parameters: dict[str, int]
    frozen: int
    parameters_bytes: int
    optimizer_bytes: int
    checkpoint_bytes: int
    episode_bytes: int
    gpu_episode_bytes: int
    chunk_sizes: dict[str, int]
    most_workers: dict[str, int]
    episode_s: float

    def worker_bytes(self, device: str) -> int:
        """About what a worker takes on a device ("cpu" or "cuda"), besides torch itself and the data."""
        each = self.gpu_episode_bytes if device == "cuda" else self.episode_bytes
        return COPIES * self.parameters_bytes + self.optimizer_bytes + self.chunk_sizes[device] * each


def arithmetic_of(experiment: Experiment) -> Arithmetic:
    """Count, and compute one chunk and one step of the optimiser on the CPU to see what they take.

    The experiment has passed the preflight.

    Raises:
        InputError: If the source cannot be read.
    """
    set_execution(experiment, CPU)
    with seeded(0):
        state = initial_state(experiment, CPU)
        gradient, episode_bytes, episode_s = _one_chunk(experiment, state)
        mapped_bytes = gpu_episode_bytes(experiment, state)
        moments = _after_a_step(experiment, state, gradient)
    parameters_bytes, optimizer_bytes = _size(state.meta), _size(moments)
    sizes = chunk_sizes(experiment)
    return Arithmetic(
        classes={split: experiment.source.num_classes(split) for split in SPLITS},
        tasks={split: _tasks(experiment, split) for split in SPLITS},
        train_episodes=experiment.num_steps * experiment.meta_batch_size,
        val_episodes=_evaluations(experiment) * experiment.evaluation.val_episodes,
        test_episodes=experiment.evaluation.test_episodes,
        parameters=_by_part(state.meta),
        frozen=sum(tensor.numel() for tensor in kept(state.network).values()),
        parameters_bytes=parameters_bytes,
        optimizer_bytes=optimizer_bytes,
        checkpoint_bytes=2 * parameters_bytes + optimizer_bytes,
        episode_bytes=episode_bytes,
        gpu_episode_bytes=episode_bytes if mapped_bytes is None else mapped_bytes,
        chunk_sizes=sizes,
        most_workers={device: workers_at_most(experiment, size) for device, size in sizes.items()},
        episode_s=episode_s,
    )


def _one_chunk(experiment: Experiment, state: TrainState) -> tuple[Tensors, int, float]:
    """The meta-gradient of a chunk in the last step, and the memory and the seconds that each of its episodes takes."""
    size, last = chunk_size_of(experiment, CPU), max(0, experiment.num_steps - 1)
    context = context_of(experiment, state.network, training=True, step=last)
    largest, shapes = _largest(experiment)
    unequal = shapes > 1
    size = TIMED if unequal else size
    parts = _episodes(experiment, range(size))
    height = _episodes(experiment, range(largest, largest + 1)) if unequal else parts
    strategy = Strategy("batched", CPU, recomputes=experiment.recompute_inner_steps)
    most_bytes = peak_bytes(experiment, state, height, unfolds=False)
    # Uncounted, and not for the first time, it takes as long as in training. Time on a processor, all threads together,
    # is what it costs however busy the machine is; the shortest is the least disturbed.
    taken: list[float] = []
    while len(taken) < MOST_TIMES and sum(taken) < ENOUGH_S:
        started = time.process_time()
        for part in parts:
            gradient = strategy.meta_gradient(experiment.algorithm, state.meta, part, context.of(part)).gradient
        taken.append(time.process_time() - started)
    return gradient, -(-most_bytes // (1 if unequal else size)), min(taken) / size


def _episodes(experiment: Experiment, indices: range) -> tuple[TensorEpisode, ...]:
    """Episodes of meta-train, as one chunk where they are of equal shape."""
    batch = sample_meta_batch(experiment.source, experiment.episodes, "meta-train", experiment.seed, indices)
    return next(chunks(batch, len(indices), CPU, experiment.source, "meta-train", experiment.augmentation))


def first_shapes(experiment: Experiment) -> int:
    """How many shapes the first episodes have."""
    return _largest(experiment)[1]


def _largest(experiment: Experiment) -> tuple[int, int]:
    """Which of the first episodes has the most numbers in its inputs, and how many shapes they have."""
    shapes, numbers = set(), []
    for index in range(LOOKED_AT):
        episode = sample_episode(experiment.source, experiment.episodes, "meta-train", experiment.seed, index)
        shapes.add(shape_of(episode.task))
        numbers.append(sum(part.size for side in episode.task[:2] for part in parts_of(side.x)))
    return numbers.index(max(numbers)), len(shapes)


def _after_a_step(experiment: Experiment, state: TrainState, gradient: Tensors) -> Tensors:
    """What the optimiser keeps, as checkpoints hold it."""
    if state.optimizer is None:
        return {}
    given = {name: gradient[name].detach() for name in state.meta}
    update(experiment.optimizer, state.optimizer, state.meta, given, step=0, num_steps=max(1, experiment.num_steps))
    return pack_optimizer(state.optimizer, state.meta)[0]


def _tasks(experiment: Experiment, split: Split) -> int:
    spec = experiment.episodes if split == "meta-train" else experiment.eval_spec
    return experiment.source.count_tasks(split, spec)


def _evaluations(experiment: Experiment) -> int:
    """How many times meta-val is judged while it trains: every so many steps, and at the end."""
    every, steps = experiment.evaluation.every, experiment.num_steps
    return 1 if every == 0 else -(-steps // every) or 1


def _by_part(meta: Tensors) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, tensor in meta.items():
        part = name.partition(".")[0]
        found[part] = found.get(part, 0) + tensor.numel()
    return found


def _size(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
