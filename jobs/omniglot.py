"""Omniglot recipes (Lake et al., Science 2015). Each is a plain function that returns an `Experiment`.

Build the store once: `metaray data import omniglot FOLDER_OR_ZIPS --out omniglot.arrow`.
"""

from metaray.algorithms import MAML, ProtoNet
from metaray.data import ClassStore
from metaray.episodes.episode import EpisodeSpec
from metaray.models import Conv4
from metaray.training.experiment import Evaluation, Experiment, Precision
from metaray.training.optimizer import Optimizer

STORE = ClassStore(path="omniglot.arrow", split="vinyals", rotations=True)
FAST_CPU = Precision(dtype="bfloat16", channels_last=True)


def maml_5way_1shot() -> Experiment:
    """Second-order MAML as in the paper: strided Conv4, one inner step of 0.4 (three when judged), transductive."""
    return Experiment(
        name="omniglot-maml",
        source=STORE,
        episodes=EpisodeSpec(ways=5, shots=1, queries=5),
        model=Conv4(downsample="stride"),
        algorithm=MAML(inner_lr=0.4, inner_steps=1),
        optimizer=Optimizer(outer_lr=1e-3, schedule="cosine"),
        meta_batch_size=8,
        num_steps=24000,
        evaluation=Evaluation(episodes=EpisodeSpec(ways=5, shots=1, queries=15), inner_steps=3, every=1000),
        precision=FAST_CPU,
    )


def protonet_5way_1shot() -> Experiment:
    """ProtoNet trained at 30 ways, judged at 5 (Snell et al., NeurIPS 2017, section 3.1, train at 60)."""
    return Experiment(
        name="omniglot-protonet",
        source=STORE,
        episodes=EpisodeSpec(ways=30, shots=1, queries=5),
        model=Conv4(),
        algorithm=ProtoNet(),
        optimizer=Optimizer(outer_lr=1e-3, schedule="cosine"),
        meta_batch_size=2,
        num_steps=8000,
        evaluation=Evaluation(episodes=EpisodeSpec(ways=5, shots=1, queries=15), every=400),
        precision=FAST_CPU,
    )
