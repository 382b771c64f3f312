"""What a table says about how it is best read: options of its import, and of the source that reads it."""

from collections.abc import Iterator

import numpy as np

from metaray.data.names import some
from metaray.data.tables.table_file import BLOCK_ROWS, TableFile

FAR = 10.0
"""Standard deviations from the mean beyond which a cell outweighs the others of its row."""
BETWEEN = 0.5
"""The share of the target's variance between groups from which on their level hides what varies within them."""


def advice(file: TableFile) -> tuple[str, ...]:
    """Sentences about columns with far cells, and about targets that differ between groups above all."""
    return (*_far_cells(file), *_levels(file))


def _far_cells(file: TableFile) -> Iterator[str]:
    columns = file.meta.preprocessing.numbers
    standard = [place for place, column in enumerate(columns) if column.is_standardised]
    farthest = np.zeros(len(standard))
    for start in range(0, len(file.x) if standard else 0, BLOCK_ROWS):
        farthest = np.maximum(farthest, np.abs(file.x[start : start + BLOCK_ROWS, standard]).max(axis=0))
    if far := [columns[place].name for place, distance in zip(standard, farthest, strict=True) if distance > FAR]:
        yield (
            f"cells lie up to {farthest.max():.0f} standard deviations off, in {some(far)}: "
            "--scaling quantile makes them ranks"
        )


def _levels(file: TableFile) -> Iterator[str]:
    meta = file.meta
    if meta.kind != "regression" or meta.preprocessing.item is not None:  # which does not go with `centred`
        return
    each = [file.targets(group, file.rows(group)).astype(np.float64) for group in meta.splits.get("meta-train", ())]
    each = [y for y in each if len(y)]
    whole = np.concatenate(each) if each else np.zeros(1)
    within = float(np.concatenate([y - y.mean() for y in each]).var()) if each else 0.0
    if len(each) > 1 and 0 < within <= (1 - BETWEEN) * whole.var():
        yield (
            f"{1 - within / whole.var():.0%} of the target's variance lies between groups: to learn differences to the "
            f"mean of each support, --set source.centred=true --set source.target_std={within**0.5:.6g}"
        )
