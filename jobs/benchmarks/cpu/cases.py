"""What is timed: methods of the literature on Conv4 with max-pooling, and the experiments that they make."""

import itertools
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from jobs.benchmarks.gpu.experiments import made_up_store
from jobs.benchmarks.peers.wire import Method
from metaray.algorithms import ANIL, FOMAML, MAML, R2D2, Algorithm, ProtoNet
from metaray.config import replace
from metaray.data import ClassStore
from metaray.episodes.episode import EpisodeSpec
from metaray.experiment.experiment import Evaluation, Experiment, Precision
from metaray.models import Conv4
from metaray.optimizers import Adam
from metaray.records.environment import environment

RATE = 0.05
OUTER_LR = 1e-6
"""So that weights hardly move: every turn computes the same."""
DTYPES = ("float32", "bfloat16")
SEED = 0


class Case(NamedTuple):
    """One method on one kind of episode.

    Attributes:
        name: in tables.
        algorithm: metaray's.
        ways: classes of an episode.
        shots: support examples a class.
        queries: query examples a class.
        meta_batch_size: episodes a meta-step.
        dtype: of the network's arithmetic.
    """

    name: str
    algorithm: Algorithm
    ways: int = 5
    shots: int = 1
    queries: int = 15
    meta_batch_size: int = 4
    dtype: str = "float32"

    @property
    def title(self) -> str:
        """With the arithmetic."""
        return f"{self.name}, {self.dtype}"

    @property
    def method(self) -> Method:
        """As a peer is told."""
        steps = getattr(self.algorithm, "inner_steps", 0)
        return Method(self.algorithm.kind, self.ways, self.dtype, RATE, steps, OUTER_LR)


METHODS = (
    Case("MAML 1 step, 5-way 1-shot", MAML(inner_lr=RATE, inner_steps=1, batch_norm="transductive")),
    Case("MAML 5 steps, 5-way 1-shot", MAML(inner_lr=RATE, inner_steps=5, batch_norm="transductive")),
    Case("ANIL 5 steps, 5-way 5-shot", ANIL(inner_lr=RATE, inner_steps=5, batch_norm="transductive"), shots=5),
    Case("ProtoNet, 20-way 5-shot", ProtoNet(batch_norm="transductive"), ways=20, shots=5, meta_batch_size=2),
    Case("FOMAML 5 steps, 5-way 1-shot", FOMAML(inner_lr=RATE, inner_steps=5, batch_norm="transductive")),
    Case("R2D2, 5-way 5-shot", R2D2(batch_norm="transductive"), shots=5),
)
CASES = tuple(case._replace(dtype=dtype) for case, dtype in itertools.product(METHODS, DTYPES))


class Size(NamedTuple):
    """How large all is: that of the literature, or tiny, to check the code.

    Attributes:
        channels: of every block.
        side: of an image, in pixels.
        queries: a class; 0 leaves them as they are.
    """

    channels: int = 64
    side: int = 28
    queries: int = 0


FULL, TINY = Size(), Size(channels=4, side=16, queries=3)


def experiment_of(case: Case, folder: Path, size: Size = FULL, **fields: Any) -> Experiment:
    """What metaray trains.

    Args:
        case: the method and its episodes.
        folder: for the data, which are made up.
        size: of network and images.
        fields: others of the experiment.
    """
    return Experiment(
        name="cpu-benchmark",
        source=ClassStore(path=str(made_up_store(folder, 1, size.side))),
        episodes=EpisodeSpec(ways=case.ways, shots=case.shots, queries=size.queries or case.queries),
        model=Conv4(channels=size.channels),
        algorithm=case.algorithm,
        optimizer=Adam(outer_lr=OUTER_LR),
        meta_batch_size=case.meta_batch_size,
        evaluation=Evaluation(every=0, val_episodes=2, test_episodes=2),
        precision=Precision.parse({"dtype": case.dtype}, where="precision"),
        seed=SEED,
        **fields,
    )


def variants(experiment: Experiment) -> dict[str, Experiment]:
    """Ours, by how it is executed, plain memory and channels last. What is tiny is not compiled: that takes minutes."""
    full = isinstance(experiment.model, Conv4) and experiment.model.channels == FULL.channels
    executions = ("each", "compiled") if full else ("each",)
    found: dict[str, Experiment] = {}
    for execution, last in itertools.product(executions, (False, True)):
        precision = replace(experiment.precision, channels_last=last)
        name = f"metaray, {execution}{', channels_last' if last else ''}"
        found[name] = replace(experiment, precision=precision, execution=execution)
    return found


@lru_cache
def without_instructions() -> str:
    """Why bfloat16 is not timed here; "" where the processor has instructions for it."""
    if any("bf16" in word for word in environment()["cpu_instructions"].split()):
        return ""
    return "this processor has no instructions for bfloat16"
