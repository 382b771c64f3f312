"""Declarations name what exists; that they are still true is checked by `xfail(strict=True)`."""

import importlib
from pathlib import Path

import pytest

from metaray.algorithms import ALGORITHMS
from tests.conformance.bench import DIFFERENTIABLE, PROTOCOLS, SETTINGS, TASKS
from tests.conformance.declared import DECLARED, QUIET, RULES

FILES = sorted(file.stem for file in Path(__file__).parent.glob("test_*.py") if file.stem != "test_references")
CASES = {
    name.removeprefix("test_")
    for stem in FILES
    for name in vars(importlib.import_module(f"tests.conformance.{stem}"))
    if name.startswith("test_")
}


@pytest.mark.parametrize("key", DECLARED, ids="-".join)
def test_a_declaration_names_a_case_and_a_kind(key: tuple[str, ...]) -> None:
    case, kind, *where = key
    assert case in CASES
    assert kind in ALGORITHMS
    assert set(where) <= {*TASKS, *PROTOCOLS}


def test_tables_name_known_kinds() -> None:
    assert {*SETTINGS, *DIFFERENTIABLE, *(kind for kind, *_ in QUIET)} <= ALGORITHMS.keys()
    assert all(set(where) <= {*TASKS, *PROTOCOLS} for _, _, *where in QUIET)


@pytest.mark.parametrize("case", RULES)
def test_a_rule_names_a_case(case: str) -> None:
    assert case in CASES


def test_reasons_are_given() -> None:
    reasons = [*DECLARED.values(), *QUIET.values(), *(reason for _, reason in RULES.values())]
    assert all(reason.strip() for reason in reasons)
