"""What is said of an error's place."""

import runpy
from pathlib import Path

import pytest
import torch

from metaray import tracebacks

CODE = """
import json


def forward(meta):
    return meta["b"]


def parse(text):
    try:
        return json.loads(text)
    except ValueError as error:
        raise RuntimeError("no weights") from error


def endless():
    return endless()
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """A file of the user's own in the working directory."""
    (tmp_path / "nets.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return runpy.run_path("nets.py")


def caught(call: object, *arguments: object) -> BaseException:
    try:
        call(*arguments)  # type: ignore[operator]
    except BaseException as error:  # noqa: BLE001 - looked at below
        return error
    raise AssertionError("nothing was raised")


def test_the_users_own_line_comes_first(nets: dict[str, object]) -> None:
    error = caught(nets["forward"], {})
    assert tracebacks.summary(error) == "KeyError: 'b' (nets.py:6, in forward)"
    assert tracebacks.told(error).splitlines()[-3:] == [
        "nets.py:6: in forward",
        '    return meta["b"]',
        "E   KeyError: 'b'",
    ]


def test_what_led_to_an_error_is_told_too(nets: dict[str, object]) -> None:
    error = caught(nets["parse"], "{")
    own = [(frame.lineno, frame.name) for frame in tracebacks.user_frames(error) if frame.filename.endswith("nets.py")]
    assert own == [(11, "parse"), (13, "parse")]
    assert "json" not in tracebacks.told(error).replace("return json.loads(text)", "")
    assert "JSONDecodeError" in tracebacks.whole(error) and "RuntimeError: no weights" in tracebacks.whole(error)


def test_of_an_endless_recursion_the_innermost_frames_are_shown(nets: dict[str, object]) -> None:
    text = tracebacks.told(caught(nets["endless"]))
    assert text.startswith("(frames further out are left out)") and len(text.splitlines()) == 2 * tracebacks.FRAMES + 2


def test_without_frames_of_the_user_the_innermost_is_shown() -> None:
    try:
        torch.zeros(2, 3).matmul(torch.zeros(2, 3))
    except RuntimeError as error:
        error.__traceback__ = None
        assert tracebacks.told(error).startswith("E   RuntimeError: mat1 and mat2")


def test_an_error_without_a_message() -> None:
    assert tracebacks.summary(KeyError()) == "KeyError" and tracebacks.told(KeyError()) == "E   KeyError"
