"""What a stream of classes says of itself."""

import csv
import json

import pytest

from metaray.records.estimate import estimate
from metaray.records.stream import StreamCurve

ORDERS = ((1.0, 0.5), (0.5, 0.25), (0.75, 0.0))
CURVE = StreamCurve("my-learner", "meta-test", "as told", "accuracy", (2, 9), ORDERS, {"class_means": ORDERS[::-1]})


def test_metrics_have_the_number_of_classes_as_step() -> None:
    late = estimate([0.5, 0.25, 0.0])
    found = {(key, step): value for key, value, step in CURVE.metrics}
    assert len(found) == len(CURVE.metrics) == 8
    assert found["stream/accuracy", 2] == 0.75 and found["stream/accuracy", 9] == late.mean == 0.25
    assert found["stream/accuracy_half_width", 9] == found["stream/accuracy_class_means_half_width", 9]
    students = late.half_width * 4.302653 / 1.959964
    assert found["stream/accuracy_half_width", 9] == pytest.approx(students), "of three orders"
    assert {metric.time_ms for metric in CURVE.logged(7)} == {7}


def test_lines_json_and_table_say_the_same() -> None:
    early, late = CURVE.scores
    assert str(CURVE).splitlines() == [
        "protocol: as told",
        f"meta-test accuracy after 2 classes: 0.7500 +- {early.half_width:.4f} (3 orders); class means 0.7500",
        f"meta-test accuracy after 9 classes: 0.2500 +- {late.half_width:.4f} (3 orders); class means 0.2500",
    ]
    tree = json.loads(CURVE.json())
    assert tree["accuracy"][1] == pytest.approx(CURVE.scores[1]._asdict()) and tree["classes"] == [2, 9]
    rows = list(csv.DictReader(CURVE.csv().splitlines()))
    assert [(row["order"], row["classes"], row["accuracy"]) for row in rows[:3]] == [
        ("0", "2", "1.0"),
        ("0", "9", "0.5"),
        ("1", "2", "0.5"),
    ]
    assert [float(row["accuracy_class_means"]) for row in rows] == [0.75, 0.0, 0.5, 0.25, 1.0, 0.5]


def test_one_order_has_no_interval_in_json_either() -> None:
    one = StreamCurve("my-learner", "meta-test", "as told", "accuracy", (2,), ((0.5,),), {})
    assert json.loads(one.json())["accuracy"] == [{"mean": 0.5, "half_width": None, "episodes": 1}]
