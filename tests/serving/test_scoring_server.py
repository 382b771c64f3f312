"""What MLflow's scoring server answers to good and to bad requests, in this process."""

import asyncio
import base64
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metaray.learners.learner import Learner
from metaray.serving.pyfunc import PyfuncLearner, example_input
from metaray.tracking.server import MlflowServer
from tests.serving.test_registered import add

Ask = Callable[..., tuple[int, Any]]


def answer(app: Any, body: bytes, kind: str = "application/json") -> tuple[int, Any]:
    """Status and JSON with which an ASGI app answers to a POST to /invocations."""
    sent: list[dict[str, Any]] = []
    asked = [{"type": "http.request", "body": body, "more_body": False}]
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/invocations",
        "raw_path": b"/invocations",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }

    async def receive() -> dict[str, Any]:
        return asked.pop(0) if asked else await asyncio.Future()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    told = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], json.loads(told)


@pytest.fixture
def ask(maml: Learner, curve: Learner, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Register a learner, and send tables to a scoring server that has loaded it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "")  # which the server sets
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc
        from mlflow.pyfunc import scoring_server

    def started(learner: Learner) -> Ask:
        add(MlflowServer(database), learner, tmp_path / "saved")
        app = scoring_server.init(mlflow.pyfunc.load_model("models:/served@champion"))

        def asked(columns: list[str], rows: list[Any]) -> tuple[int, Any]:
            return answer(app, json.dumps({"dataframe_split": {"columns": columns, "data": rows}}).encode())

        return asked

    return started


def in_json(learner: Learner) -> tuple[list[str], list[list[Any]]]:
    """The example of a learner, as a client sends it."""
    table = example_input(learner)
    table = table.astype(object).where(table.notna(), None)
    rows = table.to_numpy().tolist()
    return list(table.columns), [
        [base64.b64encode(cell).decode() if isinstance(cell, bytes) else cell for cell in row] for row in rows
    ]


def test_predictions_are_values_in_json(ask: Any, maml: Learner) -> None:
    status, told = ask(maml)(*in_json(maml))
    assert status == 200
    expected = PyfuncLearner(maml).predict(example_input(maml))
    assert [row["label"] for row in told["predictions"]] == list(expected["label"])
    for row in told["predictions"]:
        found = row["distribution"]
        assert list(found) == ["class 0", "class 1", "class 2"] and found[row["label"]] == row["probability"]
        assert sum(found.values()) == pytest.approx(1)
        assert json.loads(row["probabilities"]) == found, "as before"


def test_values_are_values(ask: Any, curve: Learner) -> None:
    status, told = ask(curve)(*in_json(curve))
    assert status == 200
    expected = PyfuncLearner(curve).predict(example_input(curve))
    assert told == {"predictions": [{"y": pytest.approx(y)} for y in expected["y"]]}


def without(column: str, columns: list[str], rows: list[list[Any]]) -> tuple[list[str], list[list[Any]]]:
    at = columns.index(column)
    return [*columns[:at], *columns[at + 1 :]], [[*row[:at], *row[at + 1 :]] for row in rows]


def test_bad_requests_are_answered_with_one_message(ask: Any, maml: Learner) -> None:
    send = ask(maml)
    columns, rows = in_json(maml)
    supports, queries = rows[:-2], rows[-2:]
    bad: dict[str, tuple[list[str], list[list[Any]]]] = {
        "the input has no support rows; give at least one (of 2 rows)": (columns, queries),
        "the input has no query rows; give at least one (of 3 rows)": (columns, supports),
        "row 3: unknown role 'qeury'. Did you mean 'query'?": (columns, [*supports, ["qeury", "", rows[-1][-1]]]),
        "row 0: a support row needs a label": (columns, [["support", "", rows[0][-1]], *rows[1:]]),
        "row 4: the image can't be read": (columns, [*rows[:-1], ["query", "", "bm8gaW1hZ2U="]]),
        "the support set has 2 classes, but this learner is 3-way": (columns, [*supports[:2], *queries]),
        "missing inputs ['image']": without("image", columns, rows),
        "Invalid base64-encoded string": (columns, [*rows[:-1], ["query", "", "not base64 !"]]),
    }
    mlflows_own = "missing inputs ['image']", "Invalid base64-encoded string"  # found by the signature
    for message, request in bad.items():
        status, told = send(*request)
        assert status == 400, (message, told)
        assert message in told["message"], (message, told)
        assert "stack_trace" not in told and "Traceback" not in json.dumps(told)
        if message not in mlflows_own:
            assert "Failed to predict data" not in told["message"] and "\n" not in told["message"]
    assert send(columns, rows)[0] == 200, "it goes on"


def test_bad_numbers(ask: Any, curve: Learner) -> None:
    columns, rows = in_json(curve)
    status, told = ask(curve)(columns, [["support", None, 0.5], *rows[1:]])
    assert (status, told["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert told["message"] == "row 0: a support row needs a y"
