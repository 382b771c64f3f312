"""What registered learners predict for fixed inputs: by plain `mlflow.pyfunc.load_model`, and by `metaray.load`.

    python -m jobs.benchmarks.unchanged.probe OUT.json

Runs in a folder of fixtures, with the old version for what is expected and with the new one for what is found.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from jobs.benchmarks.unchanged.experiments import OWN
from jobs.benchmarks.unchanged.supply import LEARNERS, QUERY, SUPPORT, VALUES_KNOWN, VALUES_NEW

Predictions = list[Any]


def uri_of(name: str) -> str:
    """Of the one version of a learner."""
    return f"models:/{name}/1"


def by_pyfunc(name: str) -> Predictions:
    """Rows of the table that MLflow gives; this knows of metaray only what the artifact names."""
    import mlflow

    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    table: pd.DataFrame = mlflow.pyfunc.load_model(uri_of(name)).predict(_table(name))
    return _plain(table)


def by_load(name: str) -> Predictions:
    """Probabilities of each class, or values, for each query."""
    import metaray

    learner = metaray.load(uri_of(name), trust=[OWN])
    if LEARNERS[name].values:
        task = learner.adapt(np.array(VALUES_KNOWN[0])[:, None], np.array(VALUES_KNOWN[1])[:, None])
        return _plain(task.predict(np.array(VALUES_NEW)[:, None]))
    paths = sorted(SUPPORT.glob("*/*.png"))
    task = learner.adapt(paths, [path.parent.name for path in paths])
    queries = sorted(QUERY.glob("*.png"))
    return [*_plain(task.predict(queries)), *_plain(task.predict_proba(queries))]


def _table(name: str) -> pd.DataFrame:
    if LEARNERS[name].values:
        known = [("support", y, x) for x, y in zip(*VALUES_KNOWN, strict=True)]
        return pd.DataFrame([*known, *(("query", np.nan, x) for x in VALUES_NEW)], columns=["role", "y", "x"])
    rows = [("support", path.parent.name, path.read_bytes()) for path in sorted(SUPPORT.glob("*/*.png"))]
    rows += [("query", "", path.read_bytes()) for path in sorted(QUERY.glob("*.png"))]
    return pd.DataFrame(rows, columns=["role", "label", "image"])


def _plain(found: Any) -> Predictions:
    listed: Predictions = np.asarray(found).tolist()
    return listed


def tried(predict: Callable[[str], Predictions], name: str) -> Predictions:
    """What it predicts, or in words why it does not."""
    try:
        return predict(name)
    except Exception as error:  # noqa: BLE001 - compared with what the other version says
        return [f"{type(error).__name__}: {error}"]


def main() -> None:
    """Plain MLflow comes first, before anything else has imported metaray."""
    found = {f"{name}, mlflow.pyfunc": tried(by_pyfunc, name) for name in LEARNERS}
    found |= {f"{name}, metaray.load": tried(by_load, name) for name in LEARNERS}
    Path(sys.argv[1]).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
