"""Glyphs: the embedded data set, letters of the fonts that matplotlib ships. Nothing to download."""

from metaray.algorithms import MAML
from metaray.data import Glyphs
from metaray.episodes.episode import EpisodeSpec
from metaray.experiment import Evaluation, Experiment, Optimizer, Precision
from metaray.models import Conv4


def demo() -> Experiment:
    """MAML, 20-way 1-shot: meta-train on Latin and Greek, judge on Georgian, Armenian and Lao, in a few minutes.

    Inductive, unlike the paper: a learner that is to be used answers a single query as well as many together.
    """
    return Experiment(
        name="glyphs",
        source=Glyphs(),
        episodes=EpisodeSpec(ways=20, shots=1, queries=3),
        model=Conv4(downsample="stride"),
        algorithm=MAML(inner_lr=0.4, inner_steps=1, batch_norm="inductive"),
        optimizer=Optimizer(outer_lr=2e-3, schedule="cosine", warmup_steps=10),
        meta_batch_size=4,
        num_steps=600,
        evaluation=Evaluation(inner_steps=3, every=150, val_episodes=100, test_episodes=600),
        precision=Precision(dtype="bfloat16", channels_last=True),
    )
