"""MovieLens (Harper and Konstan, ACM TiiS 5(4), 2015): from the films that a user has rated to their ratings of others. A
user is a task. Each recipe is a plain function that returns an `Experiment`.

    python jobs/movielens.py ml-latest-small.zip --out movielens --fold 0
    metaray data import table movielens/ratings.csv --task userId --target rating --item movieId \
        --labels 'genres:|' --labels 'tags:|' --order-by timestamp --splits movielens/splits --out movielens.arrow

With `--order-by timestamp` the support are the first ratings of a user, else, with `--leave-out timestamp`, any.

The first command joins what is known of films to their ratings: year, genres, and the tags that users of meta-train
gave them. Users are dealt to five folds by a hash of their names: fold k is meta-test, and a tenth of all, half of the
next fold, is meta-val.
"""

import argparse
import hashlib
import zipfile
from pathlib import Path

import pandas as pd

from metaray.algorithms import CNP, MAML, R2D2, Algorithm
from metaray.data import GroupTable
from metaray.episodes.episode import EpisodeSpec
from metaray.experiment import Evaluation, Experiment
from metaray.models import TableMLP
from metaray.optimizers import Adam

FOLDS = 5


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
        num_steps=600,
        chunk_size=8,  # episodes that are mapped over at once
    )


def fold_of(user: int) -> int:
    """0 to 9: of the five folds each has two of these."""
    return int(hashlib.sha256(str(user).encode()).hexdigest(), 16) % (2 * FOLDS)


def prepare(archive: Path, out: Path, fold: int) -> None:
    """Write ratings.csv, with what is known of each film, and the folder splits.

    Args:
        archive: ml-latest-small.zip, as GroupLens offers it.
        out: folder to write to.
        fold: of the users that are meta-test.
    """
    with zipfile.ZipFile(archive) as file:
        ratings, films, tags = (_table(file, name) for name in ("ratings", "movies", "tags"))
    part_of = {user: _part(fold_of(user), fold) for user in sorted(ratings["userId"].unique())}
    (out / "splits").mkdir(parents=True, exist_ok=True)
    for part in ("train", "val", "test"):
        names = [str(user) for user, of in part_of.items() if of == part]
        (out / "splits" / f"{part}.txt").write_text("\n".join(names) + "\n")
    known = tags[tags["userId"].map(part_of) == "train"]
    words = known["tag"].astype(str).str.lower().str.replace("|", "/").groupby(known["movieId"])
    films["year"] = films["title"].str.extract(r"\((\d{4})\)\s*$")[0]
    films["genres"] = films["genres"].replace("(no genres listed)", "")
    films["tags"] = films["movieId"].map(words.agg(lambda each: "|".join(sorted(set(each))))).fillna("")
    joined = ratings.merge(films[["movieId", "year", "genres", "tags"]], on="movieId", how="left")
    joined.to_csv(out / "ratings.csv", index=False)


def _table(file: zipfile.ZipFile, name: str) -> pd.DataFrame:
    inside = next(one for one in file.namelist() if one.endswith(f"/{name}.csv"))
    with file.open(inside) as stream:
        return pd.read_csv(stream)


def _part(tenth: int, fold: int) -> str:
    if tenth // 2 == fold:
        return "test"
    return "val" if tenth == 2 * ((fold + 1) % FOLDS) else "train"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Join the ratings of MovieLens with what is known of films.")
    parser.add_argument("archive", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fold", type=int, default=0, choices=range(FOLDS))
    given = parser.parse_args()
    prepare(given.archive, given.out, given.fold)
