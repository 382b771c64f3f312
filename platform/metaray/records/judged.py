"""How each meta-test episode of a run went, and what that says of large and small tasks and of single groups."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from metaray.config import explain
from metaray.data.draws import Split
from metaray.errors import InputError
from metaray.manifest import sealed_json, unsealed_json
from metaray.records.estimate import Estimate, estimate
from metaray.tasks.baselines import title_of
from metaray.tasks.score import ScoreName, score_named

JUDGED = "judged.json"
MOST_BINS = 4
WORST = 3
"""Groups that are told of where nobody asks for all."""

By = Literal["support", "query", "group"]
BY: tuple[By, ...] = get_args(By)


class Part(NamedTuple):
    """A group of evaluation episodes that have something in common.

    Attributes:
        by: What they have in common: the size of the support set or of the query set, or the group.
        name: The size or range of sizes, as in "5" and "12 to 40", or the name of the group.
        scores: Mean and interval of each score over these episodes, by the keys of `Judged.scores`.
    """

    by: By
    name: str
    scores: dict[str, Estimate]

    @property
    def told(self) -> str:
        """Description of the part."""
        return f"of {self.name}" if self.by == "group" else f"at {self.name} {self.by} examples"

    def tree(self) -> dict[str, object]:
        """The part in JSON types."""
        return {"name": self.name, "scores": {key: one._asdict() for key, one in self.scores.items()}}


@dataclass(frozen=True)
class Judged:
    """Sizes, groups and scores of single evaluation episodes, in their order.

    Attributes:
        split: Split of the episodes, "meta-val" or "meta-test".
        quality: Name of the deciding score.
        baselines: Names of the baselines.
        support: Number of support examples of each episode.
        query: Number of query examples of each episode.
        group: Name of the group of each episode; empty if tasks do not belong to groups.
        scores: Scores of each episode, by metric key: "auroc", "average_precision", "auroc_ridge".
    """

    split: Split
    quality: ScoreName
    baselines: tuple[str, ...]
    support: tuple[int, ...]
    query: tuple[int, ...]
    group: tuple[str, ...]
    scores: dict[str, tuple[float, ...]]

    def __len__(self) -> int:
        return len(self.support)

    def parts(self, by: By) -> list[Part]:
        """Parts of the episodes: by size, from small to large, or by group, from worst to best.

        Groups without a score come last. Empty if all episodes are alike.

        Many different sizes are divided at quantiles into four parts.
        """
        if by == "group":
            return self._groups()
        sizes = np.array(getattr(self, by))
        distinct = np.unique(sizes)
        if len(distinct) < 2:
            return []
        ends = distinct
        if len(distinct) > MOST_BINS:
            ends = np.unique(np.quantile(sizes, np.arange(1, MOST_BINS + 1) / MOST_BINS, method="lower"))
        return [self._part(by, _span(sizes[chosen]), chosen) for chosen in _cut(sizes, ends)]

    def told(self) -> Iterator[tuple[str, str]]:
        """Pairs of a description and scores, by sizes and for the worst groups."""
        for by in BY:
            parts = self.parts(by)
            for part in parts[: WORST if by == "group" else None]:
                more = f", among the worst of {len(parts)} groups" if by == "group" and len(parts) > WORST else ""
                yield f"{self.split} {self.quality} {part.told}{more}", self.line(part)

    def told_of(self, part: Part) -> str:
        """One line about a part."""
        return f"{self.split} {self.quality} {part.told}: {self.line(part)}"

    def line(self, part: Part) -> str:
        """The score of a part, and of each baseline on it, in one line."""
        beside = [
            f"{title_of(name)} {part.scores[f'{self.quality}_{name}'].mean:.4f}"
            for name in self.baselines
            if f"{self.quality}_{name}" in part.scores
        ]
        return "; ".join([str(part.scores[self.quality]), *([", ".join(beside)] if beside else [])])

    def csv(self) -> str:
        """A table with a row an episode."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        group = {"group": self.group} if self.group else {}
        columns = {**group, "support": self.support, "query": self.query, **self.scores}
        writer.writerow(["episode", *columns])
        writer.writerows([index, *cells] for index, cells in enumerate(zip(*columns.values(), strict=True)))
        return text.getvalue()

    def file(self) -> bytes:
        """The file of a run's folder: the JSON with a checksum."""
        return sealed_json(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes, *, where: str = JUDGED) -> "Judged":
        """Read the JSON text: the inverse of `file`.

        Raises:
            InputError: If the text is damaged or is something else; the message names `where`.
        """
        try:
            found = _JUDGED.validate_python(unsealed_json(text, where=where))
        except ValidationError as error:
            raise InputError(explain(error, where=where)) from None
        lengths = {len(found), len(found.query), len(found.group) or len(found), *map(len, found.scores.values())}
        if len(lengths) > 1 or found.quality not in found.scores:
            raise InputError(f"{where}: its columns are not those of the same episodes")
        return found

    def tree(self) -> dict[str, list[dict[str, object]]]:
        """The parts in JSON types, by what their episodes have in common."""
        return {by: [part.tree() for part in parts] for by in BY if (parts := self.parts(by))}

    def _groups(self) -> list[Part]:
        if not self.group:
            return []
        names = np.array(self.group)
        found = [self._part("group", str(name), names == name) for name in np.unique(names)]
        gain = score_named(self.quality).gain

        def place(part: Part) -> tuple[bool, float, str]:
            mean = part.scores[self.quality].mean
            return not math.isnan(mean), 0.0 if math.isnan(mean) else gain(mean), part.name

        return sorted(found, key=place)

    def _part(self, by: By, name: str, chosen: NDArray[np.bool_]) -> Part:
        return Part(by, name, {key: estimate(np.array(values)[chosen]) for key, values in self.scores.items()})


_JUDGED = TypeAdapter(Judged)


def _cut(sizes: NDArray[np.int64], ends: NDArray[np.int64]) -> list[NDArray[np.bool_]]:
    """Which sizes are up to each end, and above the one before."""
    bins = np.searchsorted(np.unique([*ends, sizes.max()]), sizes)
    return [bins == place for place in np.unique(bins)]


def _span(sizes: Sequence[int] | NDArray[np.int64]) -> str:
    low, high = min(sizes), max(sizes)
    return f"{low}" if low == high else f"{low} to {high}"
