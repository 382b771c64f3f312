"""The page of two learners that were judged on the same episodes."""

import numpy as np

from metaray.experiment.overrides import differences
from metaray.reports import charts
from metaray.reports.blocks import Block, Card, Code, Page, Pairs, Pictures, Prose, Section, Table
from metaray.reports.facts import ComparisonFacts
from metaray.reports.settings import clean, hidden_tree
from metaray.reports.wording import interval, number


def comparison_page(facts: ComparisonFacts) -> Page:
    """What there is to tell of a comparison."""
    first, second = facts.sides
    cards = [
        Card(
            f"{name}: {facts.split} {facts.quality}",
            number(side.score.mean),
            f"\u00b1 {number(side.score.half_width)}, {side.score.episodes} episodes",
        )
        for name, side in zip(("first", "second"), facts.sides, strict=True)
    ]
    one = facts.difference
    cards.append(
        Card("difference, second - first", f"{one.mean:+.4f}", f"\u00b1 {number(one.half_width)}, paired by episode")
    )
    sections = [
        Section("Who is better", [Prose(f"Verdict: {facts.verdict}."), *_scores(facts)]),
        Section("Episode by episode", _episodes(facts)),
        Section("How the two differ", _settings(facts)),
        Section("Make it again", [Code(facts.again)]),
    ]
    return Page(
        f"{first.name} and {second.name}", "Comparison", f"Both on the same episodes of {facts.split}.", cards, sections
    )


def _scores(facts: ComparisonFacts) -> list[Block]:
    rows = [(side.name, side.score) for side in facts.sides]
    drawn = charts.intervals(rows, f"{facts.split} {facts.quality}")
    told = "Each by itself; the difference by episode below says more, since both had the same episodes."
    pairs = [("protocol" if _alike(facts) else f"protocol of {side.name}", side.protocol) for side in facts.sides]
    pairs = pairs[:1] if _alike(facts) else pairs
    pairs.append(
        ("difference, second - first", f"{interval(facts.difference)} ({facts.difference.episodes} episodes, paired)")
    )
    if facts.over_groups:
        pairs.append(("difference over groups", facts.over_groups))
    pairs.append(("better", facts.better or "neither is shown to be"))
    return [Pictures([(drawn, told)]), Pairs(pairs)]


def _alike(facts: ComparisonFacts) -> bool:
    return facts.sides[0].protocol == facts.sides[1].protocol


def _episodes(facts: ComparisonFacts) -> list[Block]:
    first, second = (np.array(side.by_episode, np.float64) for side in facts.sides)
    apart = second - first
    known = apart[np.isfinite(apart)]
    if not len(known):
        return [Prose("No episode has a finite score of both.")]
    drawn = charts.histogram(known, f"{facts.quality} of an episode, second - first", "episodes", zero=True)
    counts = [
        ("second is higher", str(int((known > 0).sum()))),
        ("both are equal", str(int((known == 0).sum()))),
        ("first is higher", str(int((known < 0).sum()))),
    ]
    return [
        Pictures([(drawn, "Right of zero the second learner has more.")]),
        Table((f"{facts.quality} of an episode", "episodes"), counts),
    ]


def _settings(facts: ComparisonFacts) -> list[Block]:
    """The settings in which their experiments differ."""
    if not all(side.tree for side in facts.sides):
        return [Prose("One of the two does not say which experiment it comes from.")]
    first, second = (hidden_tree(side.tree) for side in facts.sides)
    found = [line.partition(": ") for line in differences(first, second)]
    if not found:
        return [Prose("Both come from the same experiment.")]
    rows = [(key, *clean(change).split(" -> ", 1)) for key, _, change in found]
    return [Table(("setting", "first", "second"), rows, numbers=False)]
