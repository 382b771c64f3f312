"""The axis of a searched field: numbers, perhaps logarithmic, or categories."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from metaray.tuning.table import is_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_LABELS = 12  # more are not read
HUGE = 1e100  # matplotlib's limits overflow before a double does


class FieldAxis:
    """The place of values on an axis: their own values if all are numbers, else 0, 1, ... for each category."""

    def __init__(self, values: Sequence[Any], *, log: bool) -> None:
        self.numeric = all(map(is_number, values))
        kinds = {repr(value): value for value in values}
        ordered = sorted(kinds, key=lambda kind: (0, kinds[kind], "") if is_number(kinds[kind]) else (1, 0, kind))
        self.places = {} if self.numeric else {kind: float(place) for place, kind in enumerate(ordered)}
        self.labels = [short(kinds[kind]) for kind in self.places]
        held = [float(value) for value in values if fits(value)] if self.numeric else list(self.places.values())
        self.low, self.high = min(held, default=0.0), max(held, default=1.0)
        self.log = log and self.numeric and self.low > 0
        self.whole = self.numeric and all(isinstance(value, int) for value in values)

    def at(self, value: Any) -> float:
        """The place of a value on the axis; NaN if it has none."""
        if self.numeric:
            return float(value) if is_number(value) and fits(value) else math.nan
        return self.places.get(repr(value), math.nan)

    def share(self, at: float) -> float:
        """How far along the axis a place is, 0 to 1."""
        low, high, at = (math.log(x) if self.log else x for x in (self.low, self.high, at))
        return 0.5 if low == high else (at - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Places of the ticks and their labels: both ends and round numbers between them, or the categories."""
        from matplotlib.ticker import LogLocator, MaxNLocator

        if not self.numeric:
            return list(zip(self.places.values(), self.labels, strict=True))[:: -(-len(self.places) // MAX_LABELS)]
        decades = self.log and self.high >= 100 * self.low
        locator = LogLocator(numticks=8) if decades else MaxNLocator(5, integer=self.whole)
        between = map(float, locator.tick_values(self.low, self.high)) if self.low < self.high else []
        inner = [at for at in between if self.low < at < self.high and 0.06 < self.share(at) < 0.94]
        return [(at, short(at)) for at in sorted({self.low, *inner, self.high})]

    def dress(self, axes: Axes) -> None:
        """Configure the x axis of a plot."""
        if self.log:
            axes.set_xscale("log")
        elif self.numeric:
            axes.locator_params(axis="x", integer=self.whole)
        else:
            places, labels = zip(*self.ticks(), strict=True)
            slant: dict[str, Any] = {"rotation": 25, "ha": "right", "rotation_mode": "anchor"}
            axes.set_xticks(places, labels, parse_math=False, **(slant if sum(map(len, labels)) > 80 else {}))
            axes.set_xlim(-0.5, len(self.places) - 0.5)


def fits(value: float) -> bool:
    """Whether a plot can show the value."""
    return abs(value) < HUGE  # not where it is NaN


def short(value: Any) -> str:
    """The value as a short label."""
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() and abs(value) < 1e6 else f"{value:.3g}"
    text = " ".join(str(value).split())
    return text if len(text) <= 18 else f"{text[:9]}...{text[-6:]}"
