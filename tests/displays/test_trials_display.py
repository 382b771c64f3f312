import io
import re
from typing import Any

import pytest
from rich.console import Console

from metaray.displays.trials_display import TrialsDisplay, constant, settings_text, short_names, stacked, value_text
from metaray.tuning.trial import Trial, TrialScore
from tests.tuning.small import make_search


def trial(number: int, status: Any, *values: float, **fields: Any) -> Trial:
    curve = tuple(TrialScore(step, 8 * step, value) for step, value in enumerate(values, start=1))
    return Trial(number, {"algorithm.inner_lr": 0.04166}, 24, status, curve=curve, **fields)


def shown(make_experiment: Any, *news: Trial, terminal: bool) -> str:
    out = io.StringIO()
    display = TrialsDisplay(make_search(make_experiment()), Console(file=out, force_terminal=terminal, width=140))
    trials: dict[int, Trial] = {}
    for changed in news:
        trials[changed.number] = changed
        display.on_trials(list(trials.values()), changed)
    display.on_note("[a] note")
    display.close()
    return out.getvalue()


def test_a_log_has_a_line_for_each_news(make_experiment: Any) -> None:
    begun, judged = trial(0, "running"), trial(0, "running", 0.5)
    stopped = trial(0, "stopped early", 0.5, why="by asha after 8 episodes")
    assert shown(make_experiment, begun, judged, judged, stopped, terminal=False).splitlines() == [
        "trial-0000  running  algorithm.inner_lr=0.04166",
        "trial-0000  running  algorithm.inner_lr=0.04166  accuracy 0.5000 after 8 of 24 episodes",
        "trial-0000  stopped early  algorithm.inner_lr=0.04166  accuracy 0.5000 after 8 of 24 episodes  "
        "by asha after 8 episodes",
        "[a] note",
    ]


def test_a_terminal_has_a_live_table(make_experiment: Any) -> None:
    text = shown(
        make_experiment,
        trial(0, "finished", 0.5, 0.9),
        trial(1, "failed", why="NaN"),
        trial(2, "running"),
        terminal=True,
    )
    assert "3 of 4 trials: 1 running, 1 finished, 1 failed" in text
    assert "0*" in text and "16 67%" in text and "0.9000" in text and "NaN" in text


def test_a_long_table_keeps_what_runs_and_the_best(make_experiment: Any) -> None:
    trials = [trial(n, "running" if n == 0 else "finished", n / 100) for n in range(60)]
    text = shown(make_experiment, *trials, terminal=True).rpartition("60 of 4 trials")[2]
    assert "59*" in text and "\n" in text
    rows = [line for line in text.splitlines() if "finished" in line or "running" in line]
    assert len(rows) <= 25 and any("running" in row for row in rows)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0416666, "0.04167"),
        (5, "5"),
        ("maml", "maml"),
        (None, "null"),
        ([1, 2], "[1, 2]"),
        ({"steps": [0], "values": [0.1]}, "0.1"),
        ({"steps": [0, 50], "values": [0.1, 0.08]}, "0.08 (since step 50)"),
    ],
)
def test_values_are_short(value: Any, text: str) -> None:
    assert value_text(value) == text
    assert settings_text({"a.b": value, "c": 1}) == f"a.b={text} c=1"


def test_columns_are_short_as_far_as_that_tells_them_apart() -> None:
    keys = ["algorithm.inner_lr", "optimizer.outer_lr", "seed", "evaluation.seed", "algorithm.inner_lr.head.*"]
    assert list(short_names(keys).values()) == ["inner_lr", "outer_lr", "seed", "evaluation.seed", "head.*"]
    assert list(short_names(keys)) == keys


SIX = {
    "algorithm.inner_lr": 0.04166,
    "optimizer.outer_lr": 0.00012345,
    "meta_batch_size": 8,
    "optimizer.final_lr_fraction": 1.2340e-05,
    "optimizer.weight_decay": 1.2340e-05,
    "optimizer.momentum": 0.9876,
}


def settings_of(number: int, fields: int) -> dict[str, Any]:
    """Of the first fields, each with another value in each trial, all but the batch size and the weight decay."""
    same = ("meta_batch_size", "optimizer.weight_decay")
    return {key: value if key in same else value * (1 - number / 100) for key, value in list(SIX.items())[:fields]}


@pytest.mark.parametrize(
    ("fields", "names", "row"),
    [
        (1, ["inner_lr"], ["0.04083"]),
        (3, ["inner_lr", "outer_lr", "meta_batch_size"], ["0.04083", "0.000121", "8"]),
        (6, ["inner_lr", "outer_lr", "fraction", "momentum"], ["0.04083", "0.000121", "1.209e-05", "0.9678"]),
    ],
)
def test_a_trial_takes_a_line_at_80_columns(make_experiment: Any, fields: int, names: Any, row: Any) -> None:
    space = {key: "randint(1, 9)" if key == "meta_batch_size" else "uniform(0, 1)" for key in list(SIX)[:fields]}
    done, why = (TrialScore(3, 24_000, 0.5),), "an outcome of which there is more to say than fits"
    trials = [Trial(n, settings_of(n, fields), 240_000, "stopped early", "by asha", done) for n in range(3)]
    trials.append(Trial(3, settings_of(3, fields), 240_000, "failed", why))
    out = io.StringIO()
    display = TrialsDisplay(make_search(make_experiment(), space), Console(file=out, width=80, force_terminal=True))
    display.on_trials(trials, trials[0])
    display.close()
    lines = [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in out.getvalue().splitlines()]
    assert max(map(len, lines)) <= 80
    cells = [line.split() for line in lines]
    assert ["trial", *names, "episodes", "accuracy", "best"] in cells
    assert ["2", "stopped", *row, "24000", "10%", "0.5000", "0.5000"] in cells
    assert sum(line.startswith(("0", "1", "2", "3")) and "%" in line for line in lines) % 4 == 0
    told = " ".join(" ".join(lines).split())
    assert ("without meta_batch_size, weight_decay" in told) == (fields == 6)


def test_of_too_many_fields_as_many_are_shown_as_fit(make_experiment: Any) -> None:
    search, out = make_search(make_experiment(), {"algorithm.inner_lr": "uniform(0, 1)"}), io.StringIO()
    display = TrialsDisplay(search, Console(file=out, width=49, force_terminal=True))
    object.__setattr__(search, "space", dict.fromkeys(SIX, "uniform(0, 1)"))
    shown = [Trial(n, {key: value * (n + 1) for key, value in SIX.items()}, 24, "running") for n in range(2)]
    assert list(display._fields(shown)) == ["algorithm.inner_lr"]


def test_names_of_columns_are_broken_between_words() -> None:
    found = [stacked(name) for name in ("inner_lr", "meta_batch_size", "final_lr_fraction", "head.*", "a_b_c_d_e_f_g")]
    assert found == ["inner_lr", "meta_\nbatch_size", "final_lr_\nfraction", "head.*", "a_b_c_d_e_\nf_g"]


def test_fields_that_are_equal_in_all_trials() -> None:
    trials = [{"a": 1, "b": 2}, {"a": 1, "b": 3}]
    assert constant(trials, ["a", "b", "c"]) == {"a": 1}
    assert constant(trials[:1], ["a", "b"]) == {}, "of one trial all are"
    assert constant([], ["a"]) == {}
