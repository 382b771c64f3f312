"""The recipes of MovieLens, and the table that they are for."""

import zipfile
from pathlib import Path

import pandas as pd
import pytest

from jobs import movielens
from jobs.benchmarks.movielens_table import FOLDS, fold_of, prepare
from metaray.data import GroupTable
from metaray.experiment import Experiment


@pytest.mark.parametrize("recipe", [movielens.r2d2, movielens.cnp, movielens.maml])
def test_recipes_are_what_they_say(recipe: object) -> None:
    """They are made, and come back from JSON, without the file."""
    experiment = recipe()  # type: ignore[operator]
    assert Experiment.from_json(experiment.to_json()) == experiment and experiment.quality == "mae"
    assert isinstance(experiment.source, GroupTable) and experiment.eval_spec.shots == 10


def test_films_are_joined_and_users_dealt_to_folds(tmp_path: Path) -> None:
    users = [next(user for user in range(1000) if fold_of(user) == tenth) for tenth in range(2 * FOLDS)]
    tested, trained = users[0], users[5]
    with zipfile.ZipFile(tmp_path / "ml.zip", "w") as file:
        rows = "".join(f"{user},1,4.0,7\n{user},2,3.5,8\n" for user in users)
        file.writestr("ml/ratings.csv", "userId,movieId,rating,timestamp\n" + rows)
        file.writestr("ml/movies.csv", 'movieId,title,genres\n1,"A, B (1999)",Comedy|War\n2,C,(no genres listed)\n')
        file.writestr("ml/tags.csv", f"userId,movieId,tag,timestamp\n{trained},1,Fun,1\n{tested},1,seen,1\n")
    prepare(tmp_path / "ml.zip", tmp_path / "out", fold=0)
    parts = {
        part: set(map(int, (tmp_path / "out/splits" / f"{part}.txt").read_text().split()))
        for part in ("train", "val", "test")
    }
    assert parts == {"test": set(users[:2]), "val": {users[2]}, "train": set(users[3:])}
    table = pd.read_csv(tmp_path / "out/ratings.csv", dtype=str, keep_default_na=False)
    assert len(table) == 20 and set(table["tags"]) == {"fun", ""}  # not what a user of meta-test wrote
    assert dict(table.iloc[0]) == {
        "userId": str(users[0]),
        "movieId": "1",
        "rating": "4.0",
        "timestamp": "7",
        "year": "1999",
        "genres": "Comedy|War",
        "tags": "fun",
    }
    assert set(table[table["movieId"] == "2"]["genres"]) == {""}
