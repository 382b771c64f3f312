"""MovieLens (Harper and Konstan, ACM TiiS 5(4), 2015): from films that a user has rated to their ratings of others.

A user is a task. Each recipe is a plain function that returns an `Experiment`.

    python -m jobs.benchmarks.movielens_table ml-latest-small.zip --out movielens --fold 0
    metaray data import table movielens/ratings.csv --task userId --target rating --item movieId \
        --labels 'genres:|' --labels 'tags:|' --order-by timestamp --splits movielens/splits --out movielens.arrow

With `--order-by timestamp` the support are the first ratings of a user, else, with `--leave-out timestamp`, any.

The first command joins what is known of films to their ratings: year, genres, and the tags that users of meta-train
gave them. Users are dealt to five folds by a hash of their names: fold k is meta-test, and a tenth of all, half of the
next fold, is meta-val.
"""

from metaray.algorithms import CNP, MAML, R2D2, Algorithm
from metaray.data import GroupTable
from metaray.episodes.episode import EpisodeSpec
from metaray.experiment import Evaluation, Experiment
from metaray.models import TableMLP
from metaray.optimizers import Adam


def r2d2() -> Experiment:
    """Ridge regression on an embedding of films that all users share, about what users think on average."""
    return _experiment("r2d2", R2D2(prior=True, initial_regularizer=20.0))


def cnp() -> Experiment:
    """A conditional neural process."""
    return _experiment("cnp", CNP())


def maml() -> Experiment:
    """MAML, in 3 inner steps."""
    return _experiment("maml", MAML(inner_lr=0.01, inner_steps=3))


def _experiment(name: str, algorithm: Algorithm) -> Experiment:
    return Experiment(
        name=f"movielens-{name}",
        source=GroupTable(path="movielens.arrow", target_mean=3.5, target_std=1.04, judged_by="mae", trained_by="mae"),
        episodes=EpisodeSpec(shots=10, queries=10),  # some users have 20 ratings
        evaluation=Evaluation(
            episodes=EpisodeSpec(shots=10, queries="rest"), every=50, val_episodes=200, test_episodes=600
        ),
        model=TableMLP(hidden=(64, 64)),
        algorithm=algorithm,
        optimizer=Adam(outer_lr=1e-3),
        meta_batch_size=32,
        num_steps=300,  # beyond, meta-val gets worse
        chunk_size=16,  # episodes that are mapped over at once; up to two workers have some
    )
