"""How well the classes of a stream are told apart, after more and more of them."""

import csv
import io
import json
from dataclasses import asdict, dataclass
from typing import Any

from metaray.json_text import finite
from metaray.records.estimate import NORMAL_95, Estimate, estimate
from metaray.records.journal import Metric
from metaray.records.over_groups import student_95
from metaray.records.result import HALF_WIDTH
from metaray.tasks.baselines import title_of

PREFIX = "stream/"


@dataclass(frozen=True)
class StreamCurve:
    """Scores of a learner on several orders of a stream of classes. It prints as the command line shows it.

    Attributes:
        model: Name of the learner, as it was given.
        split: Split whose classes arrive: "meta-val" or "meta-test".
        protocol: Evaluation protocol in words: how the scores are to be read.
        quality: Name of the score, one of `metaray.tasks.score.SCORES`.
        classes: Numbers of classes after which the learner was evaluated, ascending.
        orders: Scores of the learner [orders][classes], one list for each order of arrival.
        baselines: Scores of the baselines in the same form, by name.
    """

    model: str
    split: str
    protocol: str
    quality: str
    classes: tuple[int, ...]
    orders: tuple[tuple[float, ...], ...]
    baselines: dict[str, tuple[tuple[float, ...], ...]]

    @property
    def scores(self) -> list[Estimate]:
        """The mean over the orders after each number of classes."""
        return _estimates(self.orders)

    @property
    def metrics(self) -> list[tuple[str, float, int]]:
        """Key, value, and the number of classes as step."""
        found: list[tuple[str, float, int]] = []
        named = {self.quality: self.orders} | {f"{self.quality}_{name}": one for name, one in self.baselines.items()}
        for name, orders in named.items():
            for step, score in zip(self.classes, _estimates(orders), strict=True):
                found.append((PREFIX + name, score.mean, step))
                if score.episodes > 1:
                    found.append((PREFIX + name + HALF_WIDTH, score.half_width, step))
        return found

    def logged(self, time_ms: int) -> list[Metric]:
        """The scores as metrics for a tracker."""
        return [Metric(key, value, step, time_ms) for key, value, step in self.metrics]

    def tree(self) -> dict[str, Any]:
        """The curve in JSON types, with the means and their intervals."""
        beside = {name: [score._asdict() for score in _estimates(one)] for name, one in self.baselines.items()}
        return asdict(self) | {self.quality: [score._asdict() for score in self.scores], "baseline_scores": beside}

    def json(self) -> str:
        """JSON text, null where a number is none."""
        return json.dumps(finite(self.tree()), indent=2, allow_nan=False) + "\n"

    def csv(self) -> str:
        """A table with a row an order and number of classes."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["order", "classes", self.quality, *(f"{self.quality}_{name}" for name in self.baselines)])
        for order, scores in enumerate(self.orders):
            for place, (count, score) in enumerate(zip(self.classes, scores, strict=True)):
                writer.writerow([order, count, score, *(one[order][place] for one in self.baselines.values())])
        return text.getvalue()

    def __str__(self) -> str:
        lines = [f"protocol: {self.protocol}"]
        beside = {name: _estimates(one) for name, one in self.baselines.items()}
        for place, (count, score) in enumerate(zip(self.classes, self.scores, strict=True)):
            told = [f"{title_of(name)} {one[place].mean:.4f}" for name, one in beside.items()]
            lines.append(f"{self.split} {self.quality} after {count} classes: {'; '.join([_told(score), *told])}")
        return "\n".join(lines)


def _estimates(orders: tuple[tuple[float, ...], ...]) -> list[Estimate]:
    return [_over_orders(scores) for scores in zip(*orders, strict=True)]


def _over_orders(scores: tuple[float, ...]) -> Estimate:
    """The mean with Student's interval, as orders are few."""
    found = estimate(scores)
    if found.episodes < 2:
        return found
    return found._replace(half_width=found.half_width * student_95(found.episodes - 1) / NORMAL_95)


def _told(score: Estimate) -> str:
    if score.episodes == 1:
        return f"{score.mean:.4f} (1 order, which has no interval)"
    return f"{score.mean:.4f} +- {score.half_width:.4f} ({score.episodes} orders)"
