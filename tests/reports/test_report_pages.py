"""Facts into pages: what is shown, escaped, missing, and readable in the dark."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from metaray.records.estimate import Estimate
from metaray.records.journal import Metric
from metaray.records.overview import Overview
from metaray.records.result import Result, Rival
from metaray.reports.calibration import Level, calibration
from metaray.reports.comparison_page import comparison_page
from metaray.reports.confusion import ClassScore, Confusion
from metaray.reports.facts import (
    Classes,
    ComparisonFacts,
    Example,
    Measured,
    Missing,
    Point,
    Row,
    RunFacts,
    Side,
    Tile,
    Values,
)
from metaray.reports.page import html_of
from metaray.reports.run_page import run_page
from metaray.reports.search_facts import SearchFacts
from metaray.reports.search_page import search_page
from metaray.tasks.score import SCORES
from tests.reports.html_page import seen

EVIL = "<script>alert('x')</script> & \"q\" $a$"
HUSH = "metaray train a.py:b --tracking-uri https://me:hush@h --set model.options.api_key=hush --run AKIA" + 4 * "HUSH"
ONE = Estimate(0.5, 0.1, 9)
CLASSES = Classes(
    names={0: EVIL, 1: "b"},
    scores=[ClassScore(0, 1, 4), ClassScore(1, 4, 4)],
    confused=[Confusion(0, 1, 3, 4)],
    calibration=calibration(np.array([0.9, 0.7, 0.6]), np.array([True, False, True])),
)
MEASURED = Measured(
    split="meta-test",
    episodes=9,
    few=3,
    protocol="p",
    score=ONE,
    inner_steps=[Point(0, ONE), Point(1, Estimate(0.75, 0.05, 3))],
    judged_steps=1,
    shots=[Point(1, ONE, {"nearest_neighbor": ONE}), Point(5, ONE, {"nearest_neighbor": ONE})],
    judged_shots=1,
    no_more_shots="too few",
    classes=CLASSES,
    values=None,
    examples=[Example(EVIL, [Row(EVIL, [Tile("", "0.5", EVIL)], [Tile("", "", EVIL, EVIL, False)])])],
    seconds=2.0,
    peak_bytes=3 << 20,
    device="cpu",
)
VALUES = Values(np.arange(5.0), np.arange(5.0) + 0.25, np.array([0.1, 0.3]), coverage=[])
RESULT = Result(
    num_steps=6,
    best_step=4,
    meta_val=Estimate(0.61, 0.02, 6),
    meta_val_scores=(0.6,),
    meta_test=Estimate(0.5823, 0.0131, 8),
    before_adaptation=Estimate(0.3344, 0.01, 8),
    before_training=Estimate(0.3111, 0.01, 8),
    parameters_sha256="0" * 64,
    protocol=EVIL,
    seconds=75.0,
    wait_share=0.25,
    episodes_per_s=12.5,
    baselines={"nearest_neighbor": Rival(Estimate(0.4422, 0.01, 8), Estimate(0.1401, 0.02, 8))},
)
RUN = RunFacts(
    name=EVIL,
    kind="run",
    state="finished",
    tree={
        "name": EVIL,
        "source": {"kind": "own", "path": f"/data/{EVIL}"},
        "algorithm": {"kind": "maml", "password": "hush"},
    },
    score=SCORES["accuracy"],
    protocol=EVIL,
    result=RESULT,
    metrics=[Metric(key, 0.5 + step / 10, step, 0) for key in ("train/loss", "val/accuracy") for step in (1, 2)],
    origin={"command": HUSH, "torch.version": EVIL, "git.commit": "abc"},
    environment={"cpu": EVIL},
    measured=MEASURED,
    again=HUSH,
    report="metaray report x",
    notes=[EVIL],
)


def html(facts: RunFacts) -> str:
    return html_of(run_page(facts))


@pytest.fixture(scope="module")
def whole() -> str:
    """A page with all that there can be of a run."""
    return html(RUN)


def test_a_whole_page_says_what_the_facts_say(whole: str) -> None:
    found = seen(whole)
    for told in ("0.5823 \u00b1 0.0131", "0.3344 \u00b1 0.0100", "0.3111 \u00b1 0.0100", "0.4422 \u00b1 0.0100"):
        assert told in found.text
    assert "better by 0.1401 \u00b1 0.0200" in found.text and "1 min 15 s for 6 outer steps" in found.text
    assert "0.7500 \u00b1 0.0500" in found.text and "3 of 4" in found.text and "3 MiB" in found.text
    assert f"is {CLASSES.calibration.expected_error:.4f} with 15 bins" in found.text
    assert found.tags.count("svg") == 7 and "missing" not in found.text


def test_everything_of_a_users_is_escaped(whole: str) -> None:
    assert "<script" not in whole and "alert" in whole and "$a$" in whole
    assert EVIL in seen(whole).text


def test_no_secret_is_told(whole: str) -> None:
    assert "hush" not in whole.lower() and "api_key=***" in whole
    unread = SearchFacts("s", Overview("s", "search", "damaged", why=HUSH), None, again=HUSH, report=HUSH, notes=[HUSH])
    assert "hush" not in html_of(search_page(unread)).lower()


def test_pictures_take_their_colours_from_the_page(whole: str) -> None:
    found = seen(whole)
    light, dark = re.findall(r":root \{(.*?)\}", found.style, re.DOTALL)
    assert "prefers-color-scheme: dark" in found.style and "color-scheme: light dark" in light
    defined = [set(re.findall(r"(--[\w-]+):", one)) for one in (light, dark)]
    assert defined[0] == defined[1] >= set(re.findall(r"var\((--[\w-]+)\)", whole)) >= {"--series-1", "--ink"}
    drawn = "".join(re.findall(r"<svg.*?</svg>", whole, re.DOTALL))
    assert not re.search(r"(fill|stroke): ?#", drawn), "a colour that does not follow the page"


def test_what_is_missing_is_said_with_the_command_that_makes_it() -> None:
    topics = ("scores", "curves", "inner_steps", "classes", "calibration", "examples", "memory", "judged")
    missing = {topic: Missing(f"Why of {topic}.", f"metaray make {topic}") for topic in topics}
    facts = replace(RUN, result=None, measured=None, metrics=[], missing=missing, again="", origin={}, environment={})
    found = seen(html(facts))
    for topic in topics:
        assert f"missing. Why of {topic}. metaray make {topic}" in found.text
    assert "was not recorded" in found.text


def test_values_have_errors_and_no_classes() -> None:
    measured = replace(MEASURED, classes=None, values=VALUES)
    found = seen(html(replace(RUN, score=SCORES["mse"], measured=measured)))
    assert "mean absolute error 0.2500" in found.text and "taken for" not in found.text
    assert "without saying how sure it is" in found.text
    sure = replace(measured, values=replace(VALUES, coverage=[Level(0.5, 0.4), Level(0.9, 0.8)]))
    assert "90% 80.0%" in seen(html(replace(RUN, measured=sure))).text


def test_a_learner_of_which_no_run_is_known() -> None:
    facts = replace(RUN, kind="model", result=None, missing={"scores": Missing("Nobody knows.", "metaray evaluate x")})
    found = seen(html(facts))
    assert "Learner" in found.text and "metaray evaluate x" in found.text


@pytest.mark.parametrize("better", [EVIL, None])
def test_a_comparison(better: str | None) -> None:
    trees: tuple[dict[str, Any], ...] = ({"a": 1, "token": "hush"}, {"a": 2, "token": "hush hush"})
    sides = [
        Side(name, "p", Estimate(mean, 0.1, 2), scores, tree)
        for name, mean, scores, tree in zip((EVIL, "b"), (0.25, 0.75), ((0.2, 0.3), (0.7, 0.8)), trees, strict=True)
    ]
    facts = ComparisonFacts(
        (sides[0], sides[1]), "meta-val", "accuracy", Estimate(0.5, 0.01, 2), "", better, "a verdict", HUSH
    )
    text = html_of(comparison_page(facts))
    found = seen(text)
    assert "0.2500" in found.text and "+0.5000" in found.text and "second is higher 2" in found.text
    assert "a 1 2" in found.text and "<script" not in text and "hush" not in text.lower()
    assert (better or "neither is shown to be") in found.text
