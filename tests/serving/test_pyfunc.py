"""Support and query in one table."""

import base64
import io
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from metaray.algorithms.algorithm import start
from metaray.algorithms.maml import MAML
from metaray.errors import InputError
from metaray.learners.learner import Learner
from metaray.models import Conv4
from metaray.serving.columns import inputs_of, outputs_of
from metaray.serving.pyfunc import PyfuncLearner, _load_pyfunc, example_input


def tiff(values: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.asarray(values)).save(file, format="TIFF")
    return file.getvalue()


def png(grey: int, mode: str = "L") -> bytes:
    file = io.BytesIO()
    Image.new("L", (20, 12), grey).convert(mode).save(file, format="PNG")
    return file.getvalue()


def table(*rows: tuple[str, str | None, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["role", "label", "image"])


TASK = table(
    ("query", None, png(250)),
    ("support", "dark", png(0)),
    ("support", "light", png(255, "RGB")),
    ("query", "", png(5)),
    ("support", "dark", png(10)),
)


def test_a_row_a_query_in_order(proto_net: Learner) -> None:
    result = PyfuncLearner(proto_net).predict(TASK)
    assert list(result.columns) == [column.name for column in outputs_of(proto_net)]
    assert list(result["label"]) == ["light", "dark"]
    assert list(result.index) == [0, 3]
    for _, row in result.iterrows():
        probabilities: Mapping[str, float] = json.loads(row["probabilities"])
        assert set(probabilities) == {"dark", "light"}
        assert probabilities[row["label"]] == max(probabilities.values()) == row["probability"]
        assert sum(probabilities.values()) == pytest.approx(1.0)


def test_agrees_with_the_learner(maml: Learner) -> None:
    rows = [("support", name, png(grey)) for name, grey in (("a", 0), ("b", 128), ("c", 255))]
    result = PyfuncLearner(maml).predict(table(*rows, ("query", None, png(99))))
    images = [np.full((12, 20), grey, dtype=np.uint8) for grey in (0, 128, 255, 99)]
    expected = maml.adapt(images[:3], ["a", "b", "c"]).predict_proba(images[3:])[0]
    assert list(json.loads(result["probabilities"].iloc[0]).values()) == pytest.approx(expected.tolist())


def test_a_transductive_learner_that_is_asked_too_little_says_so_in_the_log(
    caplog: pytest.LogCaptureFixture, maml: Learner
) -> None:
    model = Conv4(channels=4, pools=2)
    algorithm = MAML(inner_lr=0.1, batch_norm="transductive")
    _, meta = start(algorithm, model, maml.task_shape, seed=0)
    learner = replace(maml, algorithm=algorithm, model=model, meta=meta)
    rows = [("support", name, png(grey)) for name, grey in (("a", 0), ("b", 128), ("c", 255))]
    PyfuncLearner(learner).predict(table(*rows, ("query", None, png(99))))
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("metaray.serving.pyfunc", "WARNING")
    assert "judged on 6 queries at once, 2 of each class, and now gets 1." in record.getMessage()


@pytest.mark.parametrize("encode", [base64.b64encode, base64.encodebytes])
def test_base64_text_is_the_same(encode: Any, proto_net: Learner) -> None:
    encoded = TASK.assign(image=[encode(image).decode() for image in TASK["image"]])
    pd.testing.assert_frame_equal(PyfuncLearner(proto_net).predict(encoded), PyfuncLearner(proto_net).predict(TASK))


SUPPORT = [("support", "a", png(0)), ("support", "b", png(255))]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (table(("query", None, png(0))), "no support rows"),
        (table(*SUPPORT), "no query rows"),
        (table(), "no support rows"),
        (table(*SUPPORT, ("qurey", None, png(0))), "row 2: unknown role 'qurey'. Did you mean 'query'?"),
        (table(*SUPPORT, (None, None, png(0))), "row 2: unknown role"),  # type: ignore[arg-type]
        (table(*SUPPORT, ("support", None, png(0))), "row 2: a support row needs a label"),
        (table(*SUPPORT, ("support", "", png(0))), "row 2: a support row needs a label"),
        (table(*SUPPORT, ("query", None, b"hello")), "row 2: the image can't be read"),
        (table(*SUPPORT, ("query", None, png(7)[:50])), "row 2: the image can't be read"),
        (table(*SUPPORT, ("query", None, "*!")), "row 2: the image is text, but not base64"),
        (table(*SUPPORT, ("query", None, "\u00e9")), "row 2: the image is text, but not base64"),
        (
            table(*SUPPORT, ("query", None, tiff(np.zeros((2, 2), np.float32)))),
            "row 2: the image: float32 has no range",
        ),
        (
            table(*SUPPORT, ("query", None, tiff(np.full((2, 2), 9, np.uint16)))),
            "row 2: the image: 16 bits, but nothing",
        ),
        (
            table(*SUPPORT, ("support", np.zeros(2), png(0)), ("query", None, png(0))),
            "row 2: the label is of type ndarray",
        ),  # type: ignore[arg-type]
        (table(*SUPPORT, ("support", ["a"], png(0)), ("query", None, png(0))), "row 2: the label is of type list"),  # type: ignore[arg-type]
        (table(("support", 1, png(0)), ("support", "1", png(9)), ("query", None, png(0))), "y holds both 1 and '1'"),  # type: ignore[arg-type]
        (table(*SUPPORT, ("query", None, 3.5)), "row 2: the image is a float"),
        (TASK.drop(columns="image"), "lacks the column 'image'"),
        (TASK.rename(columns={"label": "lable"}), "lacks the column 'label'; it has ['role', 'lable', 'image']"),
        (TASK.assign(weight=1), "unknown column 'weight'"),
    ],
)
def test_wrong_input(given: pd.DataFrame, message: str, proto_net: Learner) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        PyfuncLearner(proto_net).predict(given)


def test_wrong_number_of_classes(maml: Learner) -> None:
    with pytest.raises(InputError, match="2 classes, but this learner is 3-way"):
        PyfuncLearner(maml).predict(TASK)


def test_parameters_are_refused(maml: Learner) -> None:
    with pytest.raises(InputError, match="unknown parameter 'temperature'"):
        PyfuncLearner(maml).predict(TASK, {"temperature": 2})


def test_the_example_is_valid(proto_net: Learner, maml: Learner) -> None:
    for learner in (proto_net, maml):
        example = example_input(learner)
        assert list(example.columns) == [column.name for column in inputs_of(learner)]
        assert len(PyfuncLearner(learner).predict(example)) == 2


def test_loads_from_a_folder(folder: Path) -> None:
    assert list(_load_pyfunc(str(folder)).predict(TASK)["label"]) == ["light", "dark"]


def test_neither_ray_nor_mlflow_is_imported() -> None:
    code = "import sys, metaray.serving.pyfunc, metaray.serving.folders, metaray.serving.loading;"
    code += "print([name for name in ('mlflow', 'ray', 'pandas') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("role", pd.NA, "row 0: unknown role '<NA>'"),
        ("role", np.zeros(2), "row 0: unknown role"),
        ("label", "\ud800", r"row 0: the label '\\ud800' holds half of a surrogate pair"),
    ],
)
def test_cells_that_no_table_should_hold(column: str, cell: Any, message: str, proto_net: Learner) -> None:
    damaged = TASK.sort_values("role", ascending=False).reset_index(drop=True).astype(object)  # support first
    damaged.at[0, column] = cell
    with pytest.raises(InputError, match=message):
        PyfuncLearner(proto_net).predict(damaged)


def test_a_column_that_comes_twice(proto_net: Learner) -> None:
    with pytest.raises(InputError, match="the input has the column 'label' 2 times"):
        PyfuncLearner(proto_net).predict(pd.concat([TASK, TASK[["label"]]], axis=1))
