"""MovieLens as one table: each rating with what is known of the film, and users dealt to five folds by a hash.

python -m jobs.benchmarks.movielens_table ml-latest-small.zip --out movielens --fold 0
"""

import argparse
import hashlib
import zipfile
from pathlib import Path

import pandas as pd

FOLDS = 5


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
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fold", type=int, default=0, choices=range(FOLDS))
    given = parser.parse_args()
    prepare(given.archive, given.out, given.fold)
