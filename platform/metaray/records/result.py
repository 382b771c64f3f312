"""What a finished run found out, and the digest of its parameters."""

import json
from dataclasses import dataclass, field
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from metaray.algorithms.context import Tensors
from metaray.config import explain
from metaray.errors import InputError, unknown
from metaray.manifest import sealed_json, unsealed_json
from metaray.models.state import tensors_sha256
from metaray.records.estimate import Estimate
from metaray.records.storage import Storage
from metaray.tasks.score import ScoreName

RESULT = "result.json"
HALF_WIDTH = "_half_width"
"""Ends the key of the metric that holds another one's 95% interval."""


class Rival(NamedTuple):
    """What learns each task alone, on the same meta-test episodes.

    Attributes:
        score: of its predictions.
        gain: by how much the learner is better, paired by episode; negative where it is worse.
    """

    score: Estimate
    gain: Estimate

    def __str__(self) -> str:
        word = "worse" if self.gain.mean < 0 else "better"
        gain = f"{abs(self.gain.mean):.4f} +- {self.gain.half_width:.4f}"
        return f"{self.score}; the learner is {word} by {gain}, episode by episode"


@dataclass(frozen=True)
class Result:
    """The end of a run.

    Attributes:
        num_steps: outer steps done.
        best_step: outer steps done by the meta-parameters that meta-val chose.
        meta_val: their score on meta-val: accuracy, or what `quality` says.
        meta_val_scores: the same by episode, for paired comparisons.
        meta_test: their score on meta-test.
        before_adaptation: the same on meta-test with zero inner steps; None where the algorithm takes none.
        before_training: the initial meta-parameters on meta-test.
        nearest_neighbor: on pixels (or other inputs), on the same meta-test episodes; None where the preprocessing does
            not say how inputs are compared.
        parameters_sha256: of the meta-parameters after the last step.
        protocol: how the scores are to be read.
        seconds: wall time in the training loop, evaluations included.
        wait_share: share of the steps' time that rank 0 waited for episodes.
        episodes_per_s: over the steps' time.
        quality: what the scores are.
        baseline_val_scores: of the nearest neighbour on meta-val, by episode: what a first champion must surpass.
        compared: what the nearest neighbour compares, in words.
        device: the kind of device that all of this was judged on, "cpu" or "cuda"; empty where an old result does not
            say.
        baselines: those that the source names besides (`metaray.algorithms.per_task`), by name; its JSON leaves out
            none at all.
    """

    num_steps: int
    best_step: int
    meta_val: Estimate
    meta_val_scores: tuple[float, ...]
    meta_test: Estimate
    before_adaptation: Estimate | None
    before_training: Estimate
    nearest_neighbor: Estimate | None
    parameters_sha256: str
    protocol: str
    seconds: float
    wait_share: float
    episodes_per_s: float
    quality: ScoreName = "accuracy"  # results of before there were other scores do not say
    baseline_val_scores: tuple[float, ...] = ()  # nor do those of before it was judged there
    compared: str | None = "pixels"
    device: str = ""
    baselines: dict[str, Rival] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, float]:
        """What a run was trained for, as metrics by key, each with the half width of its 95% interval."""
        estimates: dict[str, Estimate | None] = {
            f"test/{self.quality}": self.meta_test,
            f"test/{self.quality}_before_adaptation": self.before_adaptation,
            f"test/{self.quality}_before_training": self.before_training,
            f"test/{self.quality}_nearest_neighbor": self.nearest_neighbor,
            f"best/val_{self.quality}": self.meta_val,
        }
        estimates |= {f"test/{self.quality}_{name}": rival.score for name, rival in self.baselines.items()}
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
        """Each baseline of `baselines` by its name in words, and how it did."""
        return [(name.replace("_", " "), str(rival)) for name, rival in self.baselines.items()]

    def to_json(self) -> str:
        """JSON text."""
        tree = {key: value._asdict() if isinstance(value, Estimate) else value for key, value in _fields(self)}
        tree["baselines"] = {
            name: {"score": rival.score._asdict(), "gain": rival.gain._asdict()}
            for name, rival in self.baselines.items()
        }
        if not self.baselines:
            del tree["baselines"]
        return json.dumps(tree, indent=2) + "\n"

    def file(self) -> bytes:
        """What lies in the run's folder: the same with a checksum."""
        return sealed_json(json.loads(self.to_json()))

    @classmethod
    def from_json(cls, text: str | bytes, *, where: str = RESULT) -> "Result":
        """The inverse of `to_json` and `file`.

        Raises:
            InputError: naming `where`, if the text is damaged or says something else.
        """
        tree = unsealed_json(text, where=where)
        if strange := tree.keys() - cls.__dataclass_fields__.keys():
            raise unknown(f"key of {where}", min(strange), cls.__dataclass_fields__)
        # Results of before a run said what its nearest neighbour compares.
        tree.setdefault("compared", "inputs" if tree.get("quality") == "mse" else "pixels")
        try:
            return _RESULTS.validate_python(tree)
        except ValidationError as error:
            raise InputError(explain(error, where=where)) from None


_RESULTS = TypeAdapter(Result)


def read_result(storage: Storage) -> Result:
    """The result of a finished run.

    Raises:
        FileNotFoundError: if there is none.
        InputError: if it is damaged.
    """
    where = f"{storage.shown}/{RESULT}"
    try:
        return Result.from_json(storage.read(RESULT), where=where)
    except InputError as error:
        raise InputError(f"{error}; delete it, and `metaray train` with the same --run judges the run again") from None


def _fields(result: Result) -> list[tuple[str, object]]:
    return [(key, getattr(result, key)) for key in result.__dataclass_fields__]


def parameters_sha256(meta: Tensors) -> str:
    """SHA-256 (hex) over names, shapes, dtypes and bytes, in the order of the names."""
    return tensors_sha256(meta)
