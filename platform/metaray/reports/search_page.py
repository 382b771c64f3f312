"""The page of a search: its trials, the best of them, what was tuned, and what that took."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from metaray.records.result import Result
from metaray.reports import search_charts as charts
from metaray.reports.blocks import Block, Card, Code, Folded, Page, Pairs, Pictures, Prose, Section, Table
from metaray.reports.search_facts import SearchFacts
from metaray.reports.wording import again_section, duration, interval, notes_section, number, trained_facts
from metaray.tuning.search import Search
from metaray.tuning.table import is_schedule, searched_keys
from metaray.tuning.trial import Objective, Trial

MOST_TRIALS = 60


def search_page(facts: SearchFacts) -> Page:
    """What there is to tell of a search."""
    search, seen = facts.search, facts.seen
    tree = search.experiment.model_dump(mode="json") if search is not None else {}
    sections = [again_section(facts.again, facts.report, facts.origin, {}, tree), notes_section(facts.notes)]
    if search is not None:
        sections[:0] = [
            Section("What was searched", [Pairs(_searched(search)), Pairs(trained_facts(tree))]),
            _winner(facts, search),
            _trials(facts, search),
            _tuned(facts, search),
            _budget(facts, search),
        ]
    state = f"{seen.state}, {seen.done} of {'?' if seen.planned is None else seen.planned} trials ended"
    return Page(facts.name, "Search", f"{state}: {seen.why}" if seen.why else state, list(_cards(facts)), sections)


def value_text(value: Any) -> str:
    """A value of a searched field."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def _cards(facts: SearchFacts) -> Iterator[Card]:
    if facts.search is None:
        return
    objective, winner = facts.search.optimises, facts.winner
    best = winner.best(objective) if winner else None
    if winner is not None and best is not None:
        yield Card(f"best meta-val {objective.name}", number(best.value), f"{winner.name}, after step {best.step}")
    if facts.result is not None:
        one = facts.result.meta_test
        yield Card(
            f"its meta-test {facts.result.quality}",
            number(one.mean),
            f"\u00b1 {number(one.half_width)}, {one.episodes} episodes",
        )
    yield Card("trials", str(len(facts.trials)), ", ".join(_counts(facts.trials)))
    yield Card("training, all trials", duration(sum(trial.seconds for trial in facts.trials)))


def _counts(trials: Sequence[Trial]) -> list[str]:
    return [f"{count} {status}" for status, count in sorted(Counter(trial.status for trial in trials).items())]


def _searched(search: Search) -> list[tuple[str, str]]:
    rows = [(key, domain.expression()) for key, domain in search.space.items()]
    return [
        *rows,
        ("objective", f"meta-val {search.optimises.name}, {'highest' if search.optimises.highest else 'lowest'}"),
        ("searcher", f"{search.searcher}, seed {search.seed}"),
        ("stopping early", search.scheduler),
    ]


def _winner(facts: SearchFacts, search: Search) -> Section:
    winner, objective = facts.winner, search.optimises
    best = winner.best(objective) if winner else None
    if winner is None or best is None:
        return Section("The best", [Prose("No trial came to an evaluation yet.")])
    rows = [
        ("trial", f"{winner.name}, {winner.status}"),
        *((key, value_text(value)) for key, value in winner.settings.items()),
    ]
    rows.append(
        (f"meta-val {objective.name}", f"{number(best.value)} \u00b1 {number(best.half_width)} after step {best.step}")
    )
    blocks: list[Block] = [Pairs(rows)]
    if facts.result is not None:
        result = facts.result
        told = [(f"meta-test {result.quality}", f"{interval(result.meta_test)} ({result.meta_test.episodes} episodes)")]
        before = result.before_adaptation
        told += [("before adaptation", interval(before))] if before is not None else []
        told += [("before training", interval(result.before_training)), *_rivals(result), ("protocol", result.protocol)]
        blocks.append(Pairs(told))
    blocks += [Prose("A report of its run:"), Code(facts.report.replace(facts.name, f"{facts.name}/{winner.name}", 1))]
    return Section("The best", blocks)


def _rivals(result: Result) -> list[tuple[str, str]]:
    return [(name, told.replace("+-", "\u00b1")) for name, told in result.rivals]


def _trials(facts: SearchFacts, search: Search) -> Section:
    objective, keys = search.optimises, searched_keys(facts.trials)
    if not facts.trials:
        return Section("Trials", [Prose("No trial was proposed yet.")])
    turned = [(trial, best.value if (best := trial.best(objective)) else None) for trial in facts.trials]
    known = sorted(
        (one for one in turned if one[1] is not None), key=lambda one: one[1] or 0.0, reverse=objective.highest
    )
    ordered = [trial for trial, _ in [*known, *(one for one in turned if one[1] is None)]]
    head = ("trial", "state", *keys, f"meta-val {objective.name}", "episodes", "time")
    rows = [_row(trial, keys, objective, wins=trial is facts.winner) for trial in ordered]
    drawn = charts.trial_curves(facts.trials, objective, facts.winner)
    blocks: list[Block] = [Pictures([(drawn, "A line a trial; a cross is where one was stopped or failed.")])]
    blocks.append(Table(head, rows[:MOST_TRIALS], "The best first"))
    if len(rows) > MOST_TRIALS:
        blocks.append(Folded(f"The other {len(rows) - MOST_TRIALS} trials", [Table(head, rows[MOST_TRIALS:])]))
    whys = [(trial.name, f"{trial.status}, {trial.why}") for trial in facts.trials if trial.why]
    if whys:
        blocks.append(Folded(f"Why {len(whys)} trials were stopped or failed", [Pairs(whys)]))
    return Section("Trials", blocks)


def _row(trial: Trial, keys: Sequence[str], objective: Objective, *, wins: bool) -> tuple[str, ...]:
    best = trial.best(objective)
    score = "\u2013" if best is None else f"{number(best.value)} \u00b1 {number(best.half_width)}"
    values = (value_text(trial.settings[key]) if key in trial.settings else "\u2013" for key in keys)
    name = f"{trial.name} \u2605" if wins else trial.name
    return (name, trial.status, *values, score, f"{trial.episodes:,}", duration(trial.seconds))


def _tuned(facts: SearchFacts, search: Search) -> Section:
    """The objective against each field that was searched; schedules have no one place on an axis."""
    trials, objective = facts.trials, search.optimises
    keys = [key for key in searched_keys(trials) if not any(is_schedule(trial.settings.get(key)) for trial in trials)]
    if not any(charts.best_of(trial, objective) for trial in trials) or not keys:
        return Section(
            "Tuned values", [Prose("There is nothing yet to set against the values that were tried.")] if trials else []
        )
    logs = {key: search.logs.get(key, False) for key in keys}
    drawn = [(charts.response(trials, key, objective, facts.winner, log=log), key) for key, log in logs.items()]
    if len(keys) > 1:
        drawn.append(
            (charts.parallel(trials, logs, objective, facts.winner), "A line a trial; the better, the stronger.")
        )
    return Section("Tuned values against the objective", [Pictures(drawn)])


def _budget(facts: SearchFacts, search: Search) -> Section:
    seen = sum(trial.own_episodes for trial in facts.trials)
    whole = search.population * max((trial.num_episodes for trial in facts.trials), default=search.budget)
    rows = [
        ("episodes of a whole trial", f"{search.budget:,}"),
        ("episodes that all trials saw", f"{seen:,} of {whole:,}, if none were stopped ({seen / whole:.0%})"),
        ("training, all trials one after the other", duration(sum(trial.seconds for trial in facts.trials))),
        ("trials", ", ".join(_counts(facts.trials)) or "none"),
    ]
    return Section("Budget", [Pairs(rows)])
