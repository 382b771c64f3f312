"""Runs and searches as lines for people to read."""

import textwrap
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from metaray.cli.amounts import duration_text, size_text, wrapped
from metaray.cli.keys import terminal_width
from metaray.displays.table import one_line
from metaray.errors import redacted

if TYPE_CHECKING:
    from metaray.api.runs import Detail
    from metaray.records.judged import Judged
    from metaray.records.overview import Overview, Score
    from metaray.records.result import Result

GAP, SHORTEST = "  ", 12
COLUMNS = ("name", "experiment", "state", "score", "age")
LEGEND = "score: accuracy, or mse, on meta-test; in brackets the best on meta-val so far. age: since it last changed"
LONGEST = 240
"""Characters of a reason in a list; `metaray runs show` has all of it."""


def print_overviews(found: "Sequence[Overview]", now_s: float) -> None:
    """Print a table of runs, and below it what there is to say of some.

    Args:
        found: Runs and searches.
        now_s: Seconds since the epoch.
    """
    rows = [(seen.name, seen.experiment, state_text(seen), score_text(seen.score), age(seen, now_s)) for seen in found]
    for line in table_lines([COLUMNS, *rows], terminal_width()):
        print(line)
    if any(seen.score for seen in found):
        print("\n".join(wrapped(LEGEND)))
    for seen in found:
        # Not in the table, which is to fit the terminal.
        if why := said_of(seen):
            print("\n".join(wrapped(f"{seen.name}: {why}")))


def table_lines(rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Rows under their head in columns of at most `width` characters.

    A first cell that would make it wider has a line of its own, and where that does not help each row has two lines.
    """
    table = [[one_line(cell) for cell in row] for row in rows]
    first, *widths = (max(map(len, column)) for column in zip(*table, strict=True))
    room = width - sum(widths) - len(GAP) * len(widths)
    for row in table:
        if room >= SHORTEST:
            long = len(row[0]) > room
            cells = ["" if long else row[0], *row[1:]]
            if long:
                yield row[0]
            yield GAP.join(c.ljust(w) for c, w in zip(cells, (min(first, room), *widths), strict=True)).rstrip()
        elif row is not table[0]:
            yield row[0]
            yield from wrapped(f"    {', '.join(filter(None, row[1:]))}")


def state_text(seen: "Overview") -> str:
    """The state in words, as in "step 150/600", "running 150/600" or "search, 3/8 trials"."""
    far = f"{seen.done}/{'?' if seen.planned is None else seen.planned}"
    if seen.kind == "search":
        words = {"unfinished": f"{far} trials", "running": f"running {far}"}
        return f"search, {words.get(seen.state, seen.state)}"
    words = {"unfinished": f"step {far}", "running": f"running {far}", "failed": f"failed {far}"}
    return words.get(seen.state, seen.state)


def score_text(score: "Score | None") -> str:
    """The score in words, as in "0.8786" or "mse 0.1234", that of meta-val in brackets."""
    if score is None:
        return ""
    quality = "" if score.quality in ("", "accuracy") else f"{score.quality} "
    text = f"{quality}{score.mean:.4f}"
    return text if score.split == "meta-test" else f"({text})"


def age(seen: "Overview", now_s: float) -> str:
    """Time since it last changed, as in "3 min"; empty where nobody knows."""
    return duration_text(now_s - seen.changed_s) if seen.changed_s else ""


def said_of(seen: "Overview") -> str:
    """Who has it, or what is wrong with it; empty where all is well."""
    if seen.holder:
        return f"running: {seen.holder}"
    return textwrap.shorten(f"{seen.state}: {redacted(seen.why)}", LONGEST, placeholder=" ...") if seen.why else ""


def detail_lines(detail: "Detail", now_s: float) -> Iterator[str]:
    """All that is known of a run or a search; `now_s` is in seconds since the epoch."""
    for label, text in _facts(detail, now_s):
        yield from wrapped(f"{label}: {text}")


def _facts(detail: "Detail", now_s: float) -> Iterator[tuple[str, str]]:
    seen = detail.seen
    yield seen.kind, f"{seen.name}, of experiment {seen.experiment or 'unknown'}"
    yield "folder", f"{redacted(detail.folder)}, {size_text(seen.size_bytes)}"
    why = "" if detail.failure else redacted(seen.why)
    yield "state", ", ".join(filter(None, (state_text(seen), seen.holder or why)))
    if seen.changed_s:
        yield "changed", f"{datetime.fromtimestamp(seen.changed_s, UTC):%Y-%m-%d %H:%M} UTC, {age(seen, now_s)} ago"
    if seen.kind == "search":
        yield from _of_trials(detail)
    else:
        yield from _of_a_run(detail)
    for note in detail.notes:
        yield "note", redacted(note)


def _of_trials(detail: "Detail") -> Iterator[tuple[str, str]]:
    for trial in detail.trials:
        name = trial.name.rpartition("/")[2]
        facts = (state_text(trial), score_text(trial.score), redacted(trial.why))
        wins = " (winner)" if name == detail.winner else ""
        yield f"{name}{wins}", ", ".join(filter(None, facts))


def _of_a_run(detail: "Detail") -> Iterator[tuple[str, str]]:
    tags = detail.tags
    if command := tags.get("command"):
        yield "command", command
    if commit := tags.get("git.commit"):
        yield "commit", commit + ("" if tags.get("git.dirty") == "false" else ", and changes that are not in it")
    if versions := [f"{key.removesuffix('.version')} {text}" for key, text in tags.items() if key.endswith(".version")]:
        yield "made with", ", ".join(versions)
    if detail.result is not None:
        yield from _of_a_result(detail.result, detail.judged)
    elif detail.seen.score is not None:
        yield f"best meta-val {detail.seen.score.quality}".rstrip(), f"{detail.seen.score.mean:.4f}"
    if detail.last:
        newest = max(entry.step for entry in detail.last)
        values = (
            f"{entry.key} {entry.value:.6g}" + ("" if entry.step == newest else f" (after step {entry.step})")
            for entry in detail.last
        )
        yield f"last measured, after step {newest}", ", ".join(values)
    if detail.failure:
        yield "failed", f"{redacted(detail.failure.partition(chr(10))[0])} (all of it: failure.txt)"
    steps = ", ".join(map(str, detail.checkpoints))
    yield "checkpoints", f"of step {steps}" if steps else "none"
    if detail.learner is not None:
        yield "learner", redacted(detail.learner)
    yield "MLflow run", detail.seen.tracking_run or "none"


def _of_a_result(result: "Result", judged: "Judged | None") -> Iterator[tuple[str, str]]:
    quality = result.quality
    yield "protocol", result.protocol
    yield f"meta-val {quality}", f"{result.meta_val}, best of the run, after step {result.best_step}"
    yield from result.rivals
    yield f"meta-test {quality} before training", str(result.before_training)
    if result.before_adaptation is not None:
        yield f"meta-test {quality} before adaptation", str(result.before_adaptation)
    if judged is not None:
        yield from judged.told()
    yield from result.scores_told
    yield f"meta-test {quality}", str(result.meta_test)
    yield "parameters sha256", result.parameters_sha256
