"""The page of a run, or of a learner: facts in, blocks out."""

from collections.abc import Iterator

from metaray.records.estimate import Estimate
from metaray.reports import charts
from metaray.reports.blocks import Block, Card, Page, Pairs, Pictures, Section, Table
from metaray.reports.facts import RunFacts
from metaray.reports.judged_sections import absent, adaptation, costs, examples, kinds, parts
from metaray.reports.wording import again_section, duration, interval, notes_section, number, trained_facts
from metaray.tasks.baselines import title_of


def run_page(facts: RunFacts) -> Page:
    """What there is to tell of a run, in the order in which somebody asks."""
    sections = [
        Section("What was trained, on what", [Pairs([*_protocol(facts), *trained_facts(facts.tree), *facts.data])]),
        _scores(facts),
        _curves(facts),
        adaptation(facts),
        *kinds(facts),
        examples(facts),
        parts(facts),
        costs(facts),
        again_section(facts.again, facts.report, facts.origin, facts.environment, facts.tree),
        notes_section(facts.notes),
    ]
    above = {"run": "Run", "model": "Learner"}[facts.kind]
    return Page(facts.name, above, facts.state, list(_cards(facts)), sections)


def _protocol(facts: RunFacts) -> list[tuple[str, str]]:
    return [("protocol", facts.protocol)] if facts.protocol else []


def _cards(facts: RunFacts) -> Iterator[Card]:
    rows = _score_rows(facts)
    for name, one in rows[:1]:
        yield Card(name, number(one.mean), f"\u00b1 {number(one.half_width)}, {one.episodes} episodes")
    for name, one in rows[1:]:
        if name == "before adaptation" or name == rows[-1][0]:
            yield Card(name, number(one.mean), f"\u00b1 {number(one.half_width)}")
    if facts.measured is not None and facts.measured.classes is not None:
        found = facts.measured.classes.calibration
        yield Card("calibration error", number(found.expected_error), f"ECE, {len(found.bins)} bins")
    if facts.parameters is not None:
        yield Card("meta-parameters", f"{facts.parameters:,}")
    if facts.result is not None:
        yield Card("training", duration(facts.result.seconds), f"{facts.result.num_steps} outer steps")


def _score_rows(facts: RunFacts) -> list[tuple[str, Estimate]]:
    """Scores that have an interval, the learner's first, and baselines last."""
    name, result, scored = facts.score.name, facts.result, facts.scored
    if result is not None:
        rows = [(f"meta-test {name}", result.meta_test)]
        if result.before_adaptation is not None:
            rows.append(("before adaptation", result.before_adaptation))
        rows.append(("before training", result.before_training))
        return rows + [(title_of(key), rival.score) for key, rival in result.baselines.items()]
    if scored is None:
        return []
    before = scored.before_adaptation
    rows = [(f"{scored.split} {name}", scored.score)]
    rows += [("before adaptation", before)] if before is not None else []
    return rows + [(title_of(key), score) for key, score in scored.baselines.items()]


def _scores(facts: RunFacts) -> Section:
    rows, result = _score_rows(facts), facts.result
    if not rows:
        return Section("Scores", absent(facts, "scores", "The scores"))
    better = "more is better" if facts.score.higher_is_better else "less is better"
    told = f"Bars are 95% intervals over episodes; {better}."
    blocks: list[Block] = [Pictures([(charts.intervals(rows, facts.score.name), told)])]
    table = [(name, interval(one), str(one.episodes)) for name, one in rows]
    if result is not None:
        table.append(
            (
                f"meta-val {facts.score.name}, best, step {result.best_step}",
                interval(result.meta_val),
                str(result.meta_val.episodes),
            )
        )
        table += [(f"meta-test {name}", interval(one), str(one.episodes)) for name, one in result.further.items()]
        groups = [
            (f"{name} over groups", interval(one), f"{one.groups} groups") for name, one in result.over_groups.items()
        ]
        table += groups
    blocks.append(Table(("score", "mean and 95% interval", "episodes"), table))
    rivals = result.rivals if result is not None else facts.scored.rivals if facts.scored else []
    if rivals:
        blocks.append(Pairs([(name, told.replace("+-", "\u00b1")) for name, told in rivals]))
    return Section("Scores, with what stands beside them", blocks)


def _curves(facts: RunFacts) -> Section:
    found = [
        (
            charts.curve(facts.metrics, "loss", None),
            "The loss. What meta-val is judged by decides which parameters are kept.",
        ),
        (charts.curve(facts.metrics, facts.score.name, facts.score), "The score that decides."),
    ]
    drawn = [(one, caption) for one, caption in found if one is not None]
    return Section("Learning curves", [Pictures(drawn)] if drawn else absent(facts, "curves", "The curves"))
