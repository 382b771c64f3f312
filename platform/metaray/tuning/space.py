"""The search space: for each searched field, by its dotted key, the domain that its values come from."""

import ast
import json
import math
import re
import sys
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np

from metaray.errors import InputError, unknown

MAX_TEXT = 10_000  # characters; more could exhaust the parser's stack
MAX_DEPTH = 20
MAX_INT = 2**63 - 1
SHOWN = 100
CONSTANTS = {"true": True, "false": False, "null": None, "none": None}  # "none" as --set reads it
FORMS = "uniform(low, high), loguniform(low, high), randint(low, high), lograndint(low, high) or choice(a, b, ...)"


class Domain(ABC):
    """The set of values that one searched field may take.

    Attributes:
        is_log: Whether samples and grid points are spaced evenly in the logarithm.
    """

    is_log: ClassVar[bool] = False

    @property
    @abstractmethod
    def size(self) -> int | None:
        """The number of values; None for a continuous domain."""

    @property
    def finite(self) -> bool:
        """Whether the values can be counted: choices and integers."""
        return self.size is not None

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> Any:
        """A random value, of Python's own types."""

    @abstractmethod
    def grid(self, points: int) -> list[Any]:
        """Values of the grid, at most `points` (>= 1), evenly spaced with both ends, or the middle; of choices all."""

    def ends(self) -> list[Any]:
        """The values that tell whether all are valid: the lowest and the highest, or every choice."""
        return self.grid(2)

    @abstractmethod
    def expression(self) -> str:
        """The text that `parse_domain` reads as this domain."""


@dataclass(frozen=True)
class _Interval(Domain):
    is_whole: ClassVar[bool] = False

    low: Any
    high: Any

    def __post_init__(self) -> None:
        bounds, kind = (self.low, self.high), int if self.is_whole else float
        if any(isinstance(bound, bool) or not isinstance(bound, int | kind) for bound in bounds):
            raise InputError(f"{self.expression()}: low and high must be {'integers' if self.is_whole else 'numbers'}")
        if not all(abs(bound) <= (MAX_INT if self.is_whole else sys.float_info.max) for bound in bounds):
            wanted = "fit 64 bits" if self.is_whole else "be finite"
            raise InputError(f"{self.expression()}: low and high must {wanted}")
        low, high = map(kind, bounds)
        if self.is_log and low <= 0:
            raise InputError(f"{self.expression()}: low must be above 0, for its logarithm")
        if not low < high:
            excluded = ", which is excluded" if self.is_whole else ""
            raise InputError(f"{self.expression()}: low must be below high{excluded}")
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    @property
    def size(self) -> int | None:
        return int(self.high - self.low) if self.is_whole else None

    def sample(self, rng: np.random.Generator) -> Any:
        if self.is_whole and not self.is_log:
            return int(rng.integers(self.low, self.high))
        value = _between(self.low, self.high, rng.random(), self.is_log)
        return min(int(value), self.high - 1) if self.is_whole else value

    def grid(self, points: int) -> list[Any]:
        assert points >= 1
        if self.size is not None and points >= self.size:
            return list(range(self.low, self.high))
        low, high = self.low, self.high - 1 if self.is_whole else self.high
        if points == 1:
            return [self._tidy(_between(low, high, 0.5, self.is_log))]
        inner = [_between(low, high, i / (points - 1), self.is_log) for i in range(1, points - 1)]
        return list(dict.fromkeys([low, *map(self._tidy, inner), high]))

    def _tidy(self, value: float) -> Any:
        """Whole, or of 12 digits, so that 0.01 is 0.01."""
        return round(value) if self.is_whole else min(max(float(f"{value:.12g}"), self.low), self.high)

    def expression(self) -> str:
        return f"{type(self).__name__.lower()}({_short(self.low)}, {_short(self.high)})"


@final
class Uniform(_Interval):
    """A float from `low` to `high`."""


@final
class LogUniform(_Interval):
    """A float from `low` > 0 to `high` whose logarithm is uniform, as for learning rates."""

    is_log: ClassVar[bool] = True


@final
class RandInt(_Interval):
    """An integer from `low` to `high` - 1: `high` is excluded, as in Ray Tune."""

    is_whole: ClassVar[bool] = True


@final
class LogRandInt(_Interval):
    """The whole part of a log-uniform float, from `low` > 0 to `high` - 1: `high` is excluded, as in Ray Tune."""

    is_log: ClassVar[bool] = True
    is_whole: ClassVar[bool] = True


@final
@dataclass(frozen=True, eq=False)
class Choice(Domain):
    """One of several JSON values, distinct in type or value: 1, 1.0 and True are three values."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.values, tuple | list) or not self.values:
            raise InputError(f"choice needs at least one value, for instance choice(1, 5), not {_short(self.values)}")
        for value in self.values:
            if not _is_json(value):
                wanted = "a finite number (an integer of 64 bits), text, true, false, null, or a list or object of such"
                raise InputError(f"choice({_short(value)}): must be {wanted}")
        # Copies that nobody else holds, of plain types: an enum's member becomes its value.
        values = tuple(json.loads(json.dumps(value, sort_keys=True)) for value in self.values)
        object.__setattr__(self, "values", values)
        if len(self.expression()) > MAX_TEXT:
            raise InputError(f"choice of {self.size} values: {len(self.expression())} characters, over {MAX_TEXT}")
        twice = [text for text, count in Counter(map(repr, values)).items() if count > 1]
        if twice:
            raise InputError(f"choice of {self.size} values: {twice[0]:.{SHOWN}} is there twice; give it once")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Choice) and self.expression() == other.expression()  # (1,) == (True,)

    def __hash__(self) -> int:
        return hash(self.expression())

    @property
    def size(self) -> int:
        """The number of choices."""
        return len(self.values)

    def sample(self, rng: np.random.Generator) -> Any:
        """A copy of a random choice, all equally likely."""
        return deepcopy(self.values[int(rng.integers(self.size))])

    def grid(self, points: int) -> list[Any]:
        """Copies of all, whatever `points`."""
        return deepcopy(list(self.values))

    def expression(self) -> str:
        """The domain as text, `choice(a, b, ...)`."""
        return f"choice({', '.join(map(repr, self.values))})"


Space = dict[str, Domain]
"""The domain of each searched field, by its dotted key."""

uniform, loguniform, randint, lograndint = Uniform, LogUniform, RandInt, LogRandInt


def choice(*values: Any) -> Choice:
    """A domain of the given values, all equally likely."""
    return Choice(values)


DOMAINS: dict[str, Callable[..., Domain]] = {
    "uniform": uniform,
    "loguniform": loguniform,
    "randint": randint,
    "lograndint": lograndint,
    "choice": choice,
}


def parse_domain(text: str) -> Domain:
    """Parse a domain; its arguments are JSON or Python literals, or bare words. Nothing is evaluated.

    Example:
        >>> parse_domain("choice(maml, true, [1, null])").expression()
        "choice('maml', True, [1, None])"

    Raises:
        InputError: If the text cannot be parsed; the message has the text and what would be right.
    """
    where = f"domain {_short(text)}"
    call = _parsed(text, where)
    if isinstance(call, ast.Name) and call.id in DOMAINS:
        raise InputError(f"{where} lacks its values; write {FORMS}")
    if not isinstance(call, ast.Call):
        _literal(call, where)
        raise InputError(f"{where} is a single value; give it with --set, or write choice({text:.{SHOWN}}, ...)")
    if not isinstance(call.func, ast.Name) or call.keywords:
        raise InputError(f"{where}: write {FORMS}, the values by position")
    name = call.func.id
    if name not in DOMAINS:
        raise unknown("domain", name[:SHOWN], DOMAINS)
    values = [_literal(node, where) for node in call.args]
    if name != "choice" and len(values) != 2:
        raise InputError(f"{where}: {name} takes two numbers, low and high, not {len(values)} values")
    return DOMAINS[name](*values)


def _parsed(text: str, where: str) -> ast.expr:
    if len(text) > MAX_TEXT:
        raise InputError(f"{where}: {len(text)} characters, over {MAX_TEXT}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of an invalid escape, for instance
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError, Warning):
        raise InputError(f"{where} cannot be read; write {FORMS}, and text with odd characters in quotes") from None


class _Words(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.Constant:
        return ast.Constant(CONSTANTS.get(node.id, node.id))


def _literal(node: ast.expr, where: str) -> Any:
    try:
        return ast.literal_eval(_Words().visit(node))
    except (ValueError, TypeError, RecursionError, MemoryError):
        raise InputError(f"{where}: nothing is computed; write {FORMS}, with plain values, text in quotes") from None


def parse_space(settings: Iterable[str]) -> Space:
    """Read the command line's `--search key=domain`.

    Raises:
        InputError: If a setting is malformed, a domain wrong, or a key given twice.
    """
    space: Space = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        if not re.fullmatch(r"[^\s()'\",]+", key) or not text.strip():
            example = "algorithm.inner_lr='loguniform(1e-3,1)'"
            raise InputError(f"--search {_short(setting)}: write it as key=domain, for instance {example}")
        if key in space:
            raise InputError(f"--search {key} is given twice: {space[key].expression():.{SHOWN}} and {text:.{SHOWN}}")
        try:
            space[key] = parse_domain(text)
        except InputError as error:
            raise InputError(f"--search {key}: {error}") from None
    return space


def _between(low: float, high: float, part: float, log: bool) -> float:
    """`part` of the way, within the bounds however it rounds. `high` - `low` could overflow, this cannot."""
    if log:
        first, last = math.log(low), math.log(high)
        return min(max(math.exp(min((1 - part) * first + part * last, last)), low), high)
    return min(max((1 - part) * low + part * high, low), high)


def _is_json(value: Any, depth: int = 0) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) for key in value) and _is_json(list(value.values()), depth)
    if isinstance(value, list):
        return depth < MAX_DEPTH and all(_is_json(one, depth + 1) for one in value)
    if isinstance(value, int):
        return abs(value) <= MAX_INT
    return math.isfinite(value) if isinstance(value, float) else value is None or isinstance(value, str)


def _short(value: object) -> str:
    try:
        return f"{value!r:.{SHOWN}}"
    except ValueError:  # of an integer of thousands of digits
        return "a huge number"
