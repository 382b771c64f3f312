"""A stream of classes on Omniglot's held-out alphabets, by learners that adapt in closed form, beside OML's figures.

python -m jobs.benchmarks.stream --data omniglot.arrow [--learners protonet r2d2] [--storage DIR] [--out docs]
"""

from collections.abc import Callable

from metaray.algorithms import R2D2, Algorithm, ProtoNet
from metaray.data import ClassStore
from metaray.episodes.episode import EpisodeSpec
from metaray.experiment import Evaluation, Experiment, Optimizer, Precision
from metaray.models import Conv4

STEPS = 900


def experiment_of(name: str, algorithm: Algorithm, data: str) -> Experiment:
    """60-way 5-shot episodes of the background alphabets, chosen by meta-val at 100 ways."""
    return Experiment(
        name=f"omniglot-stream-{name}",
        source=ClassStore(path=data, split="lake", rotations=True),
        episodes=EpisodeSpec(ways=60, shots=5, queries=5),
        model=Conv4(bias=False),
        algorithm=algorithm,
        optimizer=Optimizer(outer_lr=1e-3, schedule="cosine"),
        meta_batch_size=1,
        num_steps=STEPS,
        evaluation=Evaluation(
            episodes=EpisodeSpec(ways=100, shots=15, queries=5), every=300, val_episodes=10, test_episodes=10
        ),
        precision=Precision(dtype="bfloat16", channels_last=True),
    )


RECIPES: dict[str, Callable[[str], Experiment]] = {
    "protonet": lambda data: experiment_of("protonet", ProtoNet(), data),
    "r2d2": lambda data: experiment_of("r2d2", R2D2(), data),
}
