"""Parkinson's telemonitoring (Tsanas et al., IEEE TBME 57(4), 2010): from a few recordings of a patient's voice with
their total UPDRS to that of the patient's other recordings. A patient is a task. Each recipe is a plain function that
returns an `Experiment`.

    metaray data import table parkinsons_updrs.data --task 'subject#' --target total_UPDRS \
        --leave-out test_time,motor_UPDRS,age --splits splits --scaling quantile --out parkinsons.arrow

The scores were interpolated in time between three visits, so the time of a recording gives them away, and so does the
other score, motor_UPDRS; `metaray data describe` says so of the former. Age and sex say which patient it is.

92% of the variance of meta-train lies between its 30 patients, whose levels a learner would overfit to: targets are
differences to the mean of each support (`centred`), so that all start from the support mean, the baseline to beat. Some
measures of the voice lie 25 standard deviations off in a few recordings: they are scaled by rank.
"""

from metaray.algorithms import CNP, MAML, R2D2, Algorithm
from metaray.config import replace
from metaray.data import GroupTable
from metaray.episodes.episode import EpisodeSpec
from metaray.experiment import Evaluation, Experiment
from metaray.models import TableMLP
from metaray.optimizers import Adam

STD = 2.85
"""Of a patient's recordings about their mean, in points of the UPDRS, as the import says."""


def r2d2_10shot() -> Experiment:
    """Ridge regression on an embedding that all patients share, from 10 recordings; all others are judged."""
    return _experiment("r2d2", R2D2(), shots=10)


def r2d2_5shot() -> Experiment:
    """The same from 5 recordings."""
    return _experiment("r2d2", R2D2(), shots=5)


def cnp_10shot() -> Experiment:
    """A conditional neural process from 10 recordings."""
    return _experiment("cnp", CNP(), shots=10)


def cnp_5shot() -> Experiment:
    """The same from 5 recordings."""
    return _experiment("cnp", CNP(), shots=5)


def maml_10shot() -> Experiment:
    """MAML from 10 recordings, in 3 inner steps."""
    return replace(_experiment("maml", MAML(inner_lr=0.01, inner_steps=3), shots=10), model=TableMLP(hidden=(32, 32)))


def maml_5shot() -> Experiment:
    """The same from 5 recordings."""
    return replace(maml_10shot(), name="parkinsons-maml-5shot", **_episodes(5))


def _experiment(name: str, algorithm: Algorithm, shots: int) -> Experiment:
    return Experiment(
        name=f"parkinsons-{name}-{shots}shot",
        source=GroupTable(path="parkinsons.arrow", centred=True, target_std=STD),
        model=TableMLP(hidden=(32, 32)),
        algorithm=algorithm,
        optimizer=Adam(outer_lr=1e-3),
        meta_batch_size=16,
        num_steps=600,
        chunk_size=4,  # episodes that are mapped over at once; up to four workers have one each
        **_episodes(shots),
    )


def _episodes(shots: int) -> dict[str, object]:
    return {
        "episodes": EpisodeSpec(shots=shots, queries=20),
        "evaluation": Evaluation(
            episodes=EpisodeSpec(shots=shots, queries="rest"), every=100, val_episodes=100, test_episodes=600
        ),
    }
