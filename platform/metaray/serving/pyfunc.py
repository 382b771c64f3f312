"""What `mlflow.pyfunc.load_model` loads a learner with: one table holds support and query, one comes back.

A registered learner names this module as its loader, so its artifact holds no code.

Input, a row an image:

    role    label     image
    support cat       <bytes of an image file>
    support dog       <...>
    query             <...>

Output, a row a query, in order: `label`, `probability`, `probabilities` (every label's, as JSON text, which CSV files
and tables of plain cells hold, too), and `distribution` (the same as a mapping, which is an object in JSON).

In regression a row holds numbers, and so does the output, `y`:

    role    y     x
    support 0.5   1.25
    query         2

Inputs and targets of several numbers have the columns `x0`, `x1`, ... and `y0`, `y1`, ...

A table that is wrong is refused with an `InputError` that is MLflow's own INVALID_PARAMETER_VALUE as well, so that a
scoring server answers with status 400 and one message.
"""

import base64
import functools
import io
import json
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from metaray.data.pictures import decode_image, to_mode
from metaray.data.preprocessing import ImagePreprocessing
from metaray.errors import InputError, unknown
from metaray.serving.columns import feature_names, inputs, inputs_of, number, outputs_of, target_names
from metaray.serving.loading import load_learner

if TYPE_CHECKING:  # pandas comes with MLflow; a machine that only serves learners may have neither
    import pandas as pd

    from metaray.learners.learner import AdaptedTask, Learner

ROLES = ("support", "query")

_log = logging.getLogger(__name__)


class PyfuncLearner:
    """A learner behind MLflow's interface. It keeps nothing between calls: each brings its own task."""

    def __init__(self, learner: "Learner") -> None:
        self.learner = learner

    def predict(self, model_input: "pd.DataFrame", params: dict[str, Any] | None = None) -> "pd.DataFrame":
        """Adapt to the support rows and predict for the query rows.

        Args:
            model_input: the columns of `inputs_of`; images are bytes, or base64 text as MLflow's REST scoring sends it.
            params: MLflow passes it; none are known.

        Returns:
            The columns of `outputs_of`, one row a query, with the index of the query rows. Where the learner is
            transductive and the queries are fewer or less mixed than it was judged on, that is logged.

        Raises:
            InputError: naming the column or row that is wrong; where MLflow is installed also an `MlflowException`.
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
        if learner.task.target_size_told is None:
            y: list[Any] = _labels(model_input["label"], known)
        else:
            y = _rows(model_input, target_names(learner), known)
        task = replace(learner.adapt([x[row] for row in known], y), on_doubt=_log.warning)
        columns = _predictions(task, [x[row] for row in np.flatnonzero(~support)])
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
    """A small valid input: one example a class (or as many as it was judged with), and two queries.

    Images are plain squares of different greys, vectors have one number throughout; targets are zero.
    """
    import pandas as pd

    regression = learner.task.target_size_told is not None
    known = learner.spec.shots if regression else (learner.ways or 2)
    shares = [place / max(1, known - 1) for place in range(known)]
    targets = [[0.0] * (learner.task.target_size_told or 0) if regression else [f"class {way}"] for way in range(known)]
    rows: list[list[Any]] = [
        ["support", *target, *_example(share, learner)] for share, target in zip(shares, targets, strict=True)
    ]
    # Two, because transductive batch norm takes no single query.
    empty = [math.nan] * (learner.task.target_size_told or 0) if regression else [""]
    rows += [["query", *empty, *_example(share, learner)] for share in (0.0, 1.0)]
    return pd.DataFrame(rows, columns=[column.name for column in inputs_of(learner)])


def _example(share: float, learner: "Learner") -> list[Any]:
    """The cells of an input: black is 0 and white is 1."""
    if isinstance(learner.preprocessing, ImagePreprocessing):
        return [_png(round(255 * share), learner.preprocessing.height, learner.preprocessing.width)]
    return [share] * len(feature_names(learner))


def _png(grey: int, height: int, width: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, height), grey).save(file, format="PNG")
    return file.getvalue()


def _predictions(task: "AdaptedTask", x: list[Any]) -> dict[str, Any]:
    """The columns of the output, by name."""
    names = [column.name for column in outputs_of(task.learner)]
    if task.learner.task.target_size_told is not None:
        return dict(zip(names, task.predict_values(x).astype(np.float64).T, strict=True))
    proba, classes = task.predict_proba(x), [str(name) for name in task.classes]
    shares = [dict(zip(classes, map(float, row), strict=True)) for row in proba]
    best, highest = [classes[place] for place in proba.argmax(axis=1)], proba.max(axis=1).astype(np.float64)
    return dict(zip(names, (best, highest, list(map(json.dumps, shares)), shares), strict=True))


def _inputs(table: "pd.DataFrame", learner: "Learner") -> list[Any]:
    """The input of each row: an image, or an array of numbers [*feature]."""
    if isinstance(learner.preprocessing, ImagePreprocessing):
        return [_decode(value, row, learner.preprocessing) for row, value in enumerate(table["image"])]
    return list(inputs(_rows(table, feature_names(learner), np.arange(len(table))), learner))


def _labels(column: "pd.Series[Any]", rows: NDArray[np.int64]) -> list[str]:
    """The labels in some rows, as text."""
    from metaray.tasks.labels import plain_label, plain_labels

    found = [plain_label(column.iloc[row], f"row {row}: the label") for row in rows]
    labels = [str(label) for label in plain_labels(found)]
    for row, label in zip(rows, labels, strict=True):
        if not _is_text(label):
            raise InputError(f"row {row}: the label {label!r} holds half of a surrogate pair, which is no text")
    return labels


def _is_text(label: str) -> bool:
    try:
        label.encode()
    except UnicodeEncodeError:
        return False
    return True


def _rows(table: "pd.DataFrame", columns: list[str], rows: NDArray[np.int64]) -> list[list[float]]:
    """The numbers in some columns of some rows."""
    return [[number(table[name].iloc[row], name, f"row {row}") for name in columns] for row in rows]


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


def _decode(value: object, row: int, preprocessing: ImagePreprocessing) -> Image.Image:
    """The image in one cell, of 8 bits a channel."""
    if isinstance(value, str):
        try:
            value = base64.b64decode("".join(value.split()), validate=True)
        except ValueError as error:
            raise InputError(f"row {row}: the image is text, but not base64: {error}") from error
    if not isinstance(value, bytes | bytearray | memoryview):
        raise InputError(f"row {row}: the image is a {type(value).__name__}, not the bytes of an image file")
    image = decode_image(bytes(value), f"row {row}: the image can't be read")
    return to_mode(image, preprocessing.mode, preprocessing.value_range, f"row {row}: the image")
