"""What `mlflow.pyfunc.load_model` loads a learner with: one table holds support and query, one comes back.

A registered learner names this module as its loader, so its artifact holds no code.

Input, a row an image:

    role    label     image
    support cat       <bytes of an image file>
    support dog       <...>
    query             <...>

Output, a row a query, in order: `label`, `probability`, and `probabilities` (a JSON object: every label's).
"""

import base64
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from metaray.data.preprocessing import ImagePreprocessing
from metaray.errors import InputError, unknown
from metaray.serving.loading import load_learner

if TYPE_CHECKING:  # pandas comes with MLflow; a machine that only serves learners may have neither
    import pandas as pd

    from metaray.algorithms.learner import Learner

ROLES = ("support", "query")


class Column(NamedTuple):
    """A column of a table: its name, its type in MLflow's words, and whether it must be there."""

    name: str
    type: str
    required: bool = True


INPUTS = (Column("role", "string"), Column("label", "string", required=False), Column("image", "binary"))
OUTPUTS = (Column("label", "string"), Column("probability", "double"), Column("probabilities", "string"))


class PyfuncLearner:
    """A learner behind MLflow's interface. It keeps nothing between calls: each brings its own task."""

    def __init__(self, learner: "Learner") -> None:
        self.learner = learner

    def predict(self, model_input: "pd.DataFrame", params: dict[str, Any] | None = None) -> "pd.DataFrame":
        """Adapt to the support rows and classify the query rows.

        Args:
            model_input: the columns of `INPUTS`; images as bytes, or base64 text as MLflow's REST scoring sends them.
            params: MLflow passes it; none are known.

        Returns:
            The columns of `OUTPUTS`, one row a query, with the index of the query rows.

        Raises:
            InputError: naming the column or row that is wrong.
        """
        import pandas as pd

        if params:
            raise unknown("parameter", next(iter(params)), ())
        _check(model_input)
        support = (model_input["role"] == "support").to_numpy()
        images = [_decode(value, row) for row, value in enumerate(model_input["image"])]
        labels = [str(label) for label, is_support in zip(model_input["label"], support, strict=True) if is_support]
        task = self.learner.adapt([image for image, known in zip(images, support, strict=True) if known], labels)
        proba = task.predict_proba([image for image, known in zip(images, support, strict=True) if not known])
        names = [str(name) for name in task.classes]
        columns = {
            "label": [names[best] for best in proba.argmax(axis=1)],
            "probability": proba.max(axis=1).astype(np.float64),
            "probabilities": [json.dumps(dict(zip(names, map(float, row), strict=True))) for row in proba],
        }
        return pd.DataFrame(columns, index=model_input.index[~support])


def _load_pyfunc(data_path: str) -> PyfuncLearner:
    """MLflow calls this with the learner's folder."""
    return PyfuncLearner(load_learner(Path(data_path)))


def example_input(learner: "Learner") -> "pd.DataFrame":
    """A small valid input: one support image a class, two queries, plain squares of different greys."""
    import pandas as pd

    preprocessing = learner.preprocessing
    assert isinstance(preprocessing, ImagePreprocessing)
    height, width = preprocessing.height, preprocessing.width
    ways = learner.ways or 2
    greys = [round(255 * way / max(1, ways - 1)) for way in range(ways)]
    rows = [("support", f"class {way}", _png(grey, height, width)) for way, grey in enumerate(greys)]
    # Two, because transductive batch norm takes no single query.
    rows += [("query", "", _png(grey, height, width)) for grey in greys[:2]]
    return pd.DataFrame(rows, columns=[c.name for c in INPUTS])


def _png(grey: int, height: int, width: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, height), grey).save(file, format="PNG")
    return file.getvalue()


def _check(table: "pd.DataFrame") -> None:
    """Everything about the table that can be wrong before an image is opened."""
    import pandas as pd

    missing = [column.name for column in INPUTS if column.name not in table.columns]
    if missing:
        raise InputError(f"the input lacks the column {missing[0]!r}; it has {list(map(str, table.columns))}")
    for name in table.columns:
        if name not in {column.name for column in INPUTS}:
            raise unknown("column", str(name), [column.name for column in INPUTS])
    for row, (role, label) in enumerate(zip(table["role"], table["label"], strict=True)):
        if role not in ROLES:
            raise InputError(f"row {row}: {unknown('role', str(role), ROLES)}")
        if role == "support" and (pd.isna(label) or str(label) == ""):
            raise InputError(f"row {row}: a support row needs a label")
    for role in ROLES:
        if not (table["role"] == role).any():
            raise InputError(f"the input has no {role} rows; give at least one (of {len(table)} rows)")


def _decode(value: object, row: int) -> Image.Image:
    """The image in one cell, decoded whole."""
    if isinstance(value, str):
        try:
            value = base64.b64decode("".join(value.split()), validate=True)
        except ValueError as error:
            raise InputError(f"row {row}: the image is text, but not base64: {error}") from error
    if not isinstance(value, bytes | bytearray | memoryview):
        raise InputError(f"row {row}: the image is a {type(value).__name__}, not the bytes of an image file")
    try:
        image = Image.open(io.BytesIO(value))
        image.load()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"row {row}: the image can't be read: {error}") from error
    return image
