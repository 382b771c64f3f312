"""Regression tasks: each is one function, drawn from a family, at a few random inputs."""

import hashlib
import json
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from metaray.data.draws import Draws, Split
from metaray.data.episode_spec import EpisodeSpec
from metaray.data.many_draws import ManyDraws
from metaray.data.preprocessing import VectorPreprocessing
from metaray.data.source import Source
from metaray.data.task import Side, Task
from metaray.errors import InputError
from metaray.tasks import Regression

Numbers = NDArray[np.float64]

# Raise it whenever the same settings would give other tasks.
RECIPE_VERSION = 1


def _ascending(ends: tuple[float, float]) -> tuple[float, float]:
    low, high = ends
    if low > high:
        raise ValueError(f"a range goes from its lower to its upper end (got {low:g} to {high:g})")
    if max(-low, high, high - low) > float(np.finfo(np.float32).max):
        raise ValueError(f"the ends and the width of a range must be finite in 32 bits (got {low:g} to {high:g})")
    return ends


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]


class Family(NamedTuple):
    """A family of functions of one number that differ in a few parameters.

    Attributes:
        parameters: Fields of `FunctionFamily` with the ranges of the parameters, in the order of drawing.
        value: Function value(parameters, x) at x [n], or at x [B, n] for B functions with parameters [B, 1] each.
    """

    parameters: tuple[str, ...]
    value: Callable[[Numbers, Numbers], Numbers]


def sinusoid(parameters: Numbers, x: Numbers) -> Numbers:
    """The sinusoid amplitude * sin(x - phase)."""
    amplitude, phase = parameters
    return np.asarray(amplitude * np.sin(x - phase))


def line(parameters: Numbers, x: Numbers) -> Numbers:
    """The line slope * x + intercept."""
    slope, intercept = parameters
    return np.asarray(slope * x + intercept)


FAMILIES: dict[str, Family] = {
    "sinusoid": Family(("amplitude", "phase"), sinusoid),
    "line": Family(("slope", "intercept"), line),
}


class FunctionFamily(Source):
    """Regression tasks on functions of one number, whose parameters and inputs are drawn uniformly from ranges.

    The sinusoids are those of Finn, Abbeel and Levine ("Model-agnostic meta-learning for fast adaptation of deep
    networks", ICML 2017, arXiv:1703.03400, section 5.1), the lines those of Finn, Xu and Levine ("Probabilistic
    model-agnostic meta-learning", NeurIPS 2018, arXiv:1806.02817). Meta-splits are disjoint streams of
    random numbers: they never share a function, since parameters are real numbers.

    Example:
        >>> FunctionFamily().feature_shape, FunctionFamily(oracle=True).feature_shape
        ((1,), (3,))

    Attributes:
        family: Name of the family, a key of `FAMILIES`.
        amplitude: Range of the amplitudes of sinusoids.
        phase: Range of the phases of sinusoids, in radians; a phase shifts the function to the right.
        slope: Range of the slopes of lines.
        intercept: Range of the intercepts of lines.
        x: Range of the inputs.
        noise: Standard deviation of the normal noise that is added to each target, in support and query alike.
        oracle: Whether inputs are (x, parameters of the function) instead of x alone, so that there is nothing to adapt
            to: the paper's upper bound.
    """

    kind: ClassVar[str] = "function_family"

    family: Literal["sinusoid", "line"] = "sinusoid"
    amplitude: Range = (0.1, 5.0)
    phase: Range = (0.0, float(np.pi))
    slope: Range = (-3.0, 3.0)
    intercept: Range = (-3.0, 3.0)
    x: Range = (-5.0, 5.0)
    noise: float = Field(default=0.0, ge=0)
    oracle: bool = False

    @property
    def preprocessing(self) -> VectorPreprocessing:
        """Preprocessing of plain numbers: x, and for the oracle all parameters."""
        return VectorPreprocessing(size=1 + self.oracle * len(FAMILIES[self.family].parameters))

    @property
    def task(self) -> Regression:
        """Regression of one value."""
        return Regression()

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the settings and the version of this recipe."""
        parts = {"recipe": [self.kind, RECIPE_VERSION], **self.model_dump(mode="json")}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def check(self, split: Split, spec: EpisodeSpec) -> None:
        """Check that `spec` is plain, with one way and with numbers or ranges of queries, not "rest".

        Raises:
            InputError: If it does not.
        """
        if spec.sampling != "plain":
            raise InputError(f"Meta-Dataset's sampling is of classes, and a task of {self.kind} is one function")
        if spec.fixed_ways != 1:
            raise InputError(
                f"{spec.ways_in_words} asked for, but a task of {self.kind} is one function: ways must be 1"
            )
        if spec.queries == "rest":
            raise InputError(
                "queries: 'rest' takes all examples that are left, and there is no end to those of a function: give a "
                "number or a range"
            )

    def sample_task(self, draws: Draws, split: Split, spec: EpisodeSpec) -> Task:
        """Draw a function, then its support set, then its query set; more queries do not change the support set.

        If the numbers of examples are ranges, they are drawn first.

        Values are computed in float64 at inputs that float32 represents exactly, and rounded once: processors whose
        sines differ in the last bit give the same targets but for one in a hundred million.
        """
        self.check(split, spec)
        _, shots, queries = spec.draw(draws)
        assert queries is not None, spec
        return self._tasks(draws, shots, queries, np.zeros(1, dtype=np.int64))

    def sample_tasks(self, draws: ManyDraws, split: Split, spec: EpisodeSpec) -> list[Task]:
        """Sample tasks of fixed size with all functions at once; others one by one by `sample_task`.

        Raises:
            InputError: If `check` raises it.
        """
        self.check(split, spec)
        if not spec.is_fixed:
            return super().sample_tasks(draws, split, spec)
        _, shots, queries = spec.largest
        assert queries is not None, spec
        return [self._tasks(draws, shots, queries, np.zeros((len(draws), 1), dtype=np.int64))]

    def _tasks(self, draws: Draws | ManyDraws, shots: int, queries: int, class_ids: NDArray[np.int64]) -> Task:
        """One task, or a stack of them if `draws` are many's."""
        ranges = [getattr(self, name) for name in FAMILIES[self.family].parameters]
        parameters = np.stack([_between(ends, draws.uniform(1)) for ends in ranges])
        support, query = (Side(*self._examples(draws, parameters, count)) for count in (shots, queries))
        return Task(support, query, class_ids)

    def _examples(
        self, draws: Draws | ManyDraws, parameters: Numbers, count: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Inputs [..., count, features] and targets [..., count, 1] of functions whose parameters are [P, ..., 1]."""
        x = _between(self.x, draws.uniform(count)).astype(np.float32)
        y = FAMILIES[self.family].value(parameters, x.astype(np.float64))
        if self.noise:
            y = y + self.noise * _normal(draws, count)
        known = [np.broadcast_to(one, x.shape) for one in parameters] if self.oracle else []
        return np.stack([x, *known], axis=-1).astype(np.float32), y.astype(np.float32)[..., None]

    def count_tasks(self, split: Split, spec: EpisodeSpec) -> int:
        """More tasks than episodes have indices, since parameters are real numbers."""
        return 2**64

    def class_name(self, class_id: int) -> str:
        """Description of the family, as in "sinusoid, amplitude 0.1 to 5, phase 0 to 3.14159"."""
        names = FAMILIES[self.family].parameters
        ranges = [f"{name} {low:g} to {high:g}" for name in names for low, high in [getattr(self, name)]]
        return ", ".join([self.family, *ranges])


def _between(ends: tuple[float, float], uniform: Numbers) -> Numbers:
    low, high = ends
    return low + (high - low) * uniform


def _normal(draws: Draws | ManyDraws, count: int) -> Numbers:
    """Standard normal numbers (Box and Muller, Annals of Mathematical Statistics 29(2), 1958)."""
    first, second = draws.uniform(count), draws.uniform(count)
    return np.asarray(np.sqrt(-2 * np.log1p(-first)) * np.cos(2 * np.pi * second))
