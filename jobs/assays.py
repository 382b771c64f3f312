"""Assays: from K molecules that an assay finds active and K that it does not, which others are. An assay is a task, a
column of a table in wide form. Each recipe is a plain function that returns an `Experiment`.

    metaray data import table tox21.parquet --wide --binary --task NR-AR,... --splits splits --out assays.arrow
    metaray train jobs/assays.py:protonet_10shot --set source.path=assays.arrow

All that they need is a table with a column of 1 and 0 for each assay, empty where nobody measured, and what describes a
molecule in the others, such as one column of fingerprints; `jobs/benchmarks/molecules` makes these from SMILES.
"""

from metaray.algorithms import ANIL, CNP, R2D2, Algorithm, ProtoNet
from metaray.data import GroupTable
from metaray.episodes.episode import EpisodeSpec
from metaray.experiment import Evaluation, Experiment
from metaray.models import TableMLP
from metaray.optimizers import Adam


def protonet_10shot() -> Experiment:
    """The nearer of two class means in an embedding that all assays share, from 10 + 10 molecules; all others judge."""
    return _experiment("protonet", ProtoNet(temperature="size"))


def r2d2_10shot() -> Experiment:
    """Ridge regression on such an embedding."""
    return _experiment("r2d2", R2D2(initial_regularizer=1.0))


def anil_10shot() -> Experiment:
    """MAML that adapts the head alone, in 5 inner steps."""
    return _experiment("anil", ANIL(inner_lr=0.1, inner_steps=5))


def cnp_10shot() -> Experiment:
    """A conditional neural process."""
    return _experiment("cnp", CNP())


def _experiment(name: str, algorithm: Algorithm) -> Experiment:
    return Experiment(
        name=f"assays-{name}-10shot",
        source=GroupTable(path="assays.arrow", targets="binary"),
        model=TableMLP(hidden=(128, 64)),
        algorithm=algorithm,
        optimizer=Adam(outer_lr=1e-3),
        meta_batch_size=8,
        num_steps=100,
        episodes=EpisodeSpec(shots=10, queries=32),
        evaluation=Evaluation(
            episodes=EpisodeSpec(shots=10, queries="rest"), every=25, val_episodes=16, test_episodes=600
        ),
    )
