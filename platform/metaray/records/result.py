"""What a finished run found out, and the digest of its parameters."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from metaray.config import explain
from metaray.errors import InputError, unknown
from metaray.manifest import sealed_json, unsealed_json
from metaray.records.estimate import Estimate
from metaray.records.over_groups import GroupEstimate
from metaray.records.storage import Storage
from metaray.tasks.baselines import NEAREST, TITLES, title_of
from metaray.tasks.score import ScoreName

if TYPE_CHECKING:
    from metaray.algorithms.context import Tensors

RESULT = "result.json"
OLD_SCORES = "baseline_val_scores"
"""Field in which old results hold the nearest neighbour's scores on meta-val by episode."""
QUOTED = ", the interval to quote: episodes of one group are not independent"
HALF_WIDTH = "_half_width"
"""Suffix of the key of the metric that holds another metric's 95% interval."""


@dataclass(frozen=True)
class Rival:
    """The scores of a baseline on the meta-test episodes.

    Attributes:
        score: Mean score of the baseline's predictions.
        gain: Mean paired difference by episode, positive if the learner is better; None in old results.
        gain_over_groups: The same difference over groups; None if tasks do not belong to groups.
        further: Scores that are reported beside the deciding one, by name.
        val_scores: Scores on meta-val by episode, which a first champion must surpass; empty in old results.
    """

    score: Estimate
    gain: Estimate | None = None
    gain_over_groups: GroupEstimate | None = None
    further: dict[str, Estimate] = field(default_factory=dict)
    val_scores: tuple[float, ...] = ()

    def __str__(self) -> str:
        if self.gain is None:
            return str(self.score)
        told = f"{self.score}; the learner is {_better_by(self.gain)}, episode by episode"
        over = self.gain_over_groups
        if over is None or over.groups < 2:
            return told
        return f"{told}, and {_better_by(over)} over {over.groups} groups"


def _better_by(gain: Estimate | GroupEstimate) -> str:
    if math.isnan(gain.mean):
        return "neither better nor worse: a score is not a number"
    return f"{'worse' if gain.mean < 0 else 'better'} by {abs(gain.mean):.4f} +- {gain.half_width:.4f}"


@dataclass(frozen=True)
class Result:
    """The scores and measurements of a finished run.

    Attributes:
        num_steps: Number of outer steps done.
        best_step: Outer step whose meta-parameters had the best score on meta-val.
        meta_val: Mean score of these meta-parameters on meta-val; `quality` names the score.
        meta_val_scores: Their score in each meta-val episode, for paired comparisons.
        meta_test: Mean score of these meta-parameters on meta-test.
        before_adaptation: Mean score on meta-test with zero inner steps; None if the algorithm takes no inner steps.
        before_training: Mean score of the initial meta-parameters on meta-test.
        parameters_sha256: SHA-256 of the meta-parameters after the last step.
        protocol: Evaluation protocol in words: how the scores are to be read.
        seconds: Wall time of the training loop in seconds, evaluations included.
        wait_share: Share of the steps' time that rank 0 waited for episodes, 0 to 1.
        episodes_per_s: Episodes trained on per second of the steps' time.
        quality: Name of the score, one of `metaray.tasks.score.SCORES`.
        compared: What the nearest neighbour compares of two inputs, in words; None without that baseline.
        device: Kind of device that the scores were computed on, "cpu" or "cuda"; empty in old results.
        execution: How meta-gradients were computed, see `metaray.records.execution`; empty in old results.
        baselines: Scores of untrained baselines by name: the nearest neighbour, if inputs are compared, and those that
            the source names (`metaray.algorithms.per_task`).
        further: Scores on meta-test that are reported beside the deciding one, by name.
        over_groups: Mean and interval of each score on meta-test over groups, by name; empty if tasks do not belong to
            groups.
    """

    num_steps: int
    best_step: int
    meta_val: Estimate
    meta_val_scores: tuple[float, ...]
    meta_test: Estimate
    before_adaptation: Estimate | None
    before_training: Estimate
    parameters_sha256: str
    protocol: str
    seconds: float
    wait_share: float
    episodes_per_s: float
    quality: ScoreName = "accuracy"  # results of before there were other scores do not say
    compared: str | None = "pixels"
    device: str = ""
    execution: str = ""
    baselines: dict[str, Rival] = field(default_factory=dict)
    further: dict[str, Estimate] = field(default_factory=dict)
    over_groups: dict[str, GroupEstimate] = field(default_factory=dict)

    @property
    def nearest_neighbor(self) -> Estimate | None:
        """Score of the nearest neighbour; None if inputs are not compared."""
        return self.baselines[NEAREST].score if NEAREST in self.baselines else None

    @property
    def metrics(self) -> dict[str, float]:
        """The final scores as metrics, by key, each with the half width of its 95% interval."""
        estimates: dict[str, Estimate | GroupEstimate | None] = {
            f"test/{self.quality}": self.meta_test,
            f"test/{self.quality}_before_adaptation": self.before_adaptation,
            f"test/{self.quality}_before_training": self.before_training,
            f"best/val_{self.quality}": self.meta_val,
        }
        estimates |= {f"test/{name}": one for name, one in self.further.items()}
        estimates |= {f"test/{name}_over_groups": one for name, one in self.over_groups.items()}
        for name, rival in self.baselines.items():
            scores = {self.quality: rival.score, **rival.further}
            estimates |= {f"test/{score}_{name}": one for score, one in scores.items()}
        found: dict[str, float] = {"best/step": float(self.best_step)}
        for key, estimate in estimates.items():
            if estimate is not None:
                found |= {key: estimate.mean, f"{key}{HALF_WIDTH}": estimate.half_width}
        return found | {
            "speed/episodes_per_s": self.episodes_per_s,
            "speed/wait_share": self.wait_share,
            "speed/seconds": self.seconds,
        }

    @property
    def rivals(self) -> list[tuple[str, str]]:
        """Description and score of each baseline, in words."""
        return rivals_told(self.baselines, self.compared)

    @property
    def scores_told(self) -> list[tuple[str, str]]:
        """Description and value of the scores beside the deciding one: further scores, and all scores over groups."""
        return scores_told("meta-test", self.further, self.over_groups)

    def to_json(self) -> str:
        """The result as JSON text."""
        tree = {key: getattr(self, key) for key in self.__dataclass_fields__}
        tree = {key: plain(value) for key, value in tree.items()}
        tree[NEAREST] = plain(self.nearest_neighbor)  # also where it stood before it was one of the baselines
        return json.dumps(tree, indent=2) + "\n"

    def file(self) -> bytes:
        """The result file of the run's folder: the JSON with a checksum."""
        return sealed_json(json.loads(self.to_json()))

    @classmethod
    def from_json(cls, text: str | bytes, *, where: str = RESULT) -> "Result":
        """Read a result: the inverse of `to_json` and `file`.

        Raises:
            InputError: If the text is damaged or is not a result; the message names `where`.
        """
        tree = unsealed_json(text, where=where)
        known = [*cls.__dataclass_fields__, NEAREST, OLD_SCORES]
        if strange := tree.keys() - set(known):
            raise unknown(f"key of {where}", min(strange), known)
        _unify(tree)
        # Results of before a run said what its nearest neighbour compares.
        tree.setdefault("compared", "inputs" if tree.get("quality") == "mse" else "pixels")
        try:
            return _RESULTS.validate_python(tree)
        except ValidationError as error:
            raise InputError(explain(error, where=where)) from None


_RESULTS = TypeAdapter(Result)


def read_result(storage: Storage) -> Result:
    """Read the result of a finished run.

    Raises:
        FileNotFoundError: If the run has no result.
        InputError: If the file is damaged.
    """
    where = f"{storage.shown}/{RESULT}"
    try:
        return Result.from_json(storage.read(RESULT), where=where)
    except InputError as error:
        raise InputError(f"{error}; delete it, and `metaray train` with the same --run judges the run again") from None


def rivals_told(baselines: Mapping[str, Rival], compared: str | None) -> list[tuple[str, str]]:
    """Description and score of each baseline, in words; `compared` says what the nearest neighbour compares."""
    on = {NEAREST: f" on {compared}"}
    return [(title_of(name) + on.get(name, ""), str(rival)) for name, rival in baselines.items()]


def scores_told(
    split: str, further: Mapping[str, Estimate], over: Mapping[str, GroupEstimate]
) -> list[tuple[str, str]]:
    """Description and value of the scores beside the deciding one of a split: further scores, and all over groups."""
    told = [(f"{split} {name}", str(one)) for name, one in further.items()]
    names = sorted(over, key=lambda name: name in further)  # the one that decides comes first
    return told + [
        (
            f"{split} {name} over groups",
            str(over[name]) + (QUOTED if name == names[0] and over[name].groups > 1 else ""),
        )
        for name in names
    ]


def in_short(baselines: Mapping[str, Rival]) -> dict[str, Any]:
    """Baselines in JSON types without their scores by episode, which are hundreds of numbers."""
    found: dict[str, Any] = plain(baselines)
    return {name: {key: one for key, one in rival.items() if key != "val_scores"} for name, rival in found.items()}


def plain(value: object) -> Any:
    """Estimates, and containers of them, in JSON types; other values unchanged."""
    if isinstance(value, Rival):
        return {key: plain(getattr(value, key)) for key in Rival.__dataclass_fields__}
    if isinstance(value, Estimate | GroupEstimate):
        return value._asdict()
    return {key: plain(one) for key, one in value.items()} if isinstance(value, Mapping) else value


def _unify(tree: dict[str, Any]) -> None:
    """Put the nearest neighbour among the baselines, in the JSON of a result of before it was one of them, and all of
    them in order, since files sort them by name."""
    nearest, scores = tree.pop(NEAREST, None), tree.pop(OLD_SCORES, [])
    given = tree.get("baselines", {})
    if isinstance(given, Mapping):
        first = {} if nearest is None else {NEAREST: {"score": nearest, "val_scores": scores}}
        order = [name for name in TITLES if name in given]
        tree["baselines"] = first | {name: given[name] for name in order} | dict(given)


def parameters_sha256(meta: "Tensors") -> str:
    """SHA-256 (hex) over names, shapes, dtypes and bytes, in the order of the names."""
    from metaray.models.state import tensors_sha256  # whoever reads a result needs no torch

    return tensors_sha256(meta)
