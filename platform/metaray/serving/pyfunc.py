"""What `mlflow.pyfunc.load_model` loads a learner with: one table holds support and query, one comes back.

A registered learner names this module as its loader, so its artifact holds no code.

Input, a row an image:

    role    label     image
    support cat       <bytes of an image file>
    support dog       <...>
    query             <...>

Output, a row a query, in order: `label`, `probability`, `probabilities` (every label's, as JSON text, which CSV files
and tables of plain cells hold, too), and `distribution` (the same as a mapping, which is an object in JSON).

Where targets are values a row holds numbers, and so does the output, `y`:

    role    y     x
    support 0.5   1.25
    query         2

Inputs and targets of several numbers have the columns `x0`, `x1`, ... and `y0`, `y1`, ... A preprocessing of another
kind names the columns of its inputs itself.

A table that is wrong is refused with an `InputError` that is MLflow's own INVALID_PARAMETER_VALUE as well, so that a
scoring server answers with status 400 and one message.
"""

import functools
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metaray.errors import InputError, unknown
from metaray.serving.columns import inputs_of, target_names
from metaray.serving.loading import load_learner

if TYPE_CHECKING:  # pandas comes with MLflow; a machine that only serves learners may have neither
    import pandas as pd

    from metaray.learners.learner import Learner

ROLES = ("support", "query")

_log = logging.getLogger(__name__)


class PyfuncLearner:
    """A learner behind MLflow's pyfunc interface. It is stateless: each call brings its own task."""

    def __init__(self, learner: "Learner") -> None:
        self.learner = learner

    def predict(self, model_input: "pd.DataFrame", params: dict[str, Any] | None = None) -> "pd.DataFrame":
        """Adapt to the support rows and predict for the query rows.

        Args:
            model_input: The columns of `inputs_of`; images are bytes, or base64 text as MLflow's REST scoring sends it.
            params: Parameters that MLflow passes; none are known.

        Returns:
            The columns of `outputs_of`, one row for each query, with the index of the query rows. A warning is logged
            if the learner is transductive and the queries are fewer or less mixed than in its evaluation.

        Raises:
            InputError: If a column or row is invalid; the message names it. With MLflow installed it is also an
                `MlflowException`.
        """
        try:
            return self._predict(model_input, params)
        except InputError as error:
            raise _refusal(error).with_traceback(error.__traceback__) from None

    def _predict(self, model_input: "pd.DataFrame", params: dict[str, Any] | None) -> "pd.DataFrame":
        import pandas as pd

        if params:
            raise unknown("parameter", next(iter(params)), ())
        learner = self.learner
        _check(model_input, learner)
        support = (model_input["role"] == "support").to_numpy()
        known = np.flatnonzero(support)
        x = _inputs(model_input, learner)
        names = target_names(learner)
        cells = [[model_input[name].iloc[row] for name in names] for row in known]
        y = learner.task.from_cells(cells, names, lambda i: f"row {known[i]}")
        task = replace(learner.adapt([x[row] for row in known], y), on_doubt=_log.warning)
        columns = task.predict_columns([x[row] for row in np.flatnonzero(~support)])
        return pd.DataFrame(columns, index=model_input.index[~support])


def _refusal(error: InputError) -> Exception:
    """The same error, for MLflow's scoring server: of any other than its own it would answer with a stack trace."""
    try:
        return _refused()(str(error))
    except ImportError:
        return error


@functools.cache
def _refused() -> type[Exception]:
    from mlflow.exceptions import INVALID_PARAMETER_VALUE, MlflowException

    class Refused(InputError, MlflowException):  # type: ignore[misc]  # MLflow has no types
        """A table that is wrong."""

        def __init__(self, told: str) -> None:
            MlflowException.__init__(self, told, error_code=INVALID_PARAMETER_VALUE)
            self.told = told

        def serialize_as_json(self) -> str:
            """The answer of the scoring server, which has put a picture of the whole table before the message."""
            self.message = self.told
            return str(super().serialize_as_json())

    return Refused


def _load_pyfunc(data_path: str) -> PyfuncLearner:
    """MLflow calls this with the learner's folder."""
    return PyfuncLearner(load_learner(Path(data_path)))


def example_input(learner: "Learner") -> "pd.DataFrame":
    """A small valid input: one example for each class (or each shot it was evaluated with), and two queries.

    Images are plain squares of different greys, vectors hold one number throughout, and targets are zero. Other kinds
    of preprocessing define their own example.
    """
    import pandas as pd

    targets = learner.task.example_targets(learner.ways, learner.spec.most_shots)
    shares = [place / max(1, len(targets) - 1) for place in range(len(targets))]
    rows: list[list[Any]] = [
        ["support", *target, *learner.preprocessing.example_cells(share)]
        for share, target in zip(shares, targets, strict=True)
    ]
    # Two, because transductive batch norm takes no single query.
    empty = [math.nan if column.type == "double" else "" for column in learner.task.target_columns()]
    rows += [["query", *empty, *learner.preprocessing.example_cells(share)] for share in (0.0, 1.0)]
    return pd.DataFrame(rows, columns=[column.name for column in inputs_of(learner)])


def _inputs(table: "pd.DataFrame", learner: "Learner") -> list[Any]:
    """The input of each row, as the preprocessing reads it: an image, or an array of numbers [*feature]."""
    names = [column.name for column in learner.preprocessing.columns]
    cells = [[table[name].iloc[row] for name in names] for row in range(len(table))]
    return list(learner.preprocessing.from_cells(cells, names, lambda row: f"row {row}"))


def _check(table: "pd.DataFrame", learner: "Learner") -> None:
    """Everything about the table that can be wrong before an input is looked at."""
    import pandas as pd

    wanted = [column.name for column in inputs_of(learner)]
    targets = [column.name for column in inputs_of(learner) if not column.required]
    missing = [name for name in wanted if name not in table.columns]
    if missing:
        raise InputError(f"the input lacks the column {missing[0]!r}; it has {list(map(str, table.columns))}")
    for name in table.columns:
        if name not in wanted:
            raise unknown("column", str(name), wanted)
        if (count := list(table.columns).count(name)) > 1:
            raise InputError(f"the input has the column {name!r} {count} times")
    for row, role in enumerate(table["role"]):
        if not isinstance(role, str) or role not in ROLES:  # others may have an equality of their own
            raise InputError(f"row {row}: {unknown('role', str(role), ROLES)}")
        for name in targets if role == "support" else ():
            value = table[name].iloc[row]
            if (pd.api.types.is_scalar(value) and pd.isna(value)) or str(value) == "":
                raise InputError(f"row {row}: a support row needs a {name}")
    for role in ROLES:
        if not (table["role"] == role).any():
            raise InputError(f"the input has no {role} rows; give at least one (of {len(table)} rows)")
