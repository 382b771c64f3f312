"""What a store holds, for people who decide on an experiment."""

from dataclasses import asdict, dataclass
from typing import Any

from metaray.data.class_store import ClassStore
from metaray.data.draws import SPLITS, Split
from metaray.data.glyphs import glyph_store
from metaray.data.pictures import ValueRange
from metaray.data.preprocessing import Resample
from metaray.data.ragged import FeatureShape
from metaray.data.remote import held
from metaray.data.uniform import uniform_classes
from metaray.data.verified import open_store
from metaray.errors import unknown


@dataclass(frozen=True)
class Row:
    """One part of one split scheme.

    Attributes:
        scheme: name of the split scheme.
        part: "meta-train", "meta-val" or "meta-test".
        classes: in it, rotations counted.
        sizes: examples a class, "min / median / max".
        episodes: distinct ones of the spec asked about; 0 where it has too few classes or examples.
    """

    scheme: str
    part: Split
    classes: int
    sizes: str
    episodes: int


@dataclass(frozen=True)
class Description:
    """A store, described.

    Attributes:
        source: the store under its first scheme, from which a gallery is drawn.
        classes: in the file.
        examples: in the file.
        shape: of one example; the first axis is None where they are ragged.
        fingerprint: of the file.
        rows: a scheme's parts.
        spec: ways, shots and queries that the episode counts are for.
        value_range: by which images of more than 8 bits were scaled; None where there were none.
        resample: the filter that resized the images, and resizes those that its learners are given; None where there
            are none.
        notes: what looks wrong with the examples, a sentence each.
    """

    source: ClassStore
    classes: int
    examples: int
    shape: FeatureShape
    fingerprint: str
    rows: tuple[Row, ...]
    spec: dict[str, int]
    value_range: ValueRange | None
    resample: Resample | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {
            "classes": self.classes,
            "examples": self.examples,
            "shape": list(self.shape),
            "fingerprint": self.fingerprint,
            "value_range": self.value_range,
            "resample": self.resample,
            "notes": list(self.notes),
            "spec": self.spec,
            "splits": [asdict(row) for row in self.rows],
        }


def describe_store(
    store: str, scheme: str | None, *, rotations: bool, ways: int, shots: int, queries: int, verify: bool = False
) -> Description:
    """Open a store file, checked whole now or earlier on this machine, and describe it.

    Args:
        store: its path, or "glyphs" for the embedded one.
        scheme: one split scheme; None describes all.
        rotations: count rotated classes.
        ways: of the episodes to count.
        shots: of the episodes to count.
        queries: of the episodes to count.
        verify: check it now, whatever is known of it.

    Raises:
        InputError: if the file is missing, foreign or damaged, or has no such scheme.
    """
    path = str(glyph_store()) if store == "glyphs" else store
    with held(path) as local:
        file = open_store(local, verify=verify)
        meta, notes = file.meta, uniform_classes(file.examples, file.meta.counts, file.meta.class_names)
    if scheme is not None and scheme not in meta.schemes:
        raise unknown(f"split scheme of {store}", scheme, meta.schemes)
    spec = {"ways": ways, "shots": shots, "queries": queries}
    rows: list[Row] = []
    sources = [
        ClassStore(path=path, split=name, rotations=rotations) for name in ([scheme] if scheme else meta.schemes)
    ]
    for source in sources:
        for part in SPLITS:
            summary = source.summary(part)
            sizes = f"{summary.min_per_class} / {summary.median_per_class:g} / {summary.max_per_class}"
            count = source.count_tasks(part, **spec)
            rows.append(Row(source.split, part, summary.classes, sizes, count))
    return Description(
        source=sources[0],
        classes=len(meta.class_names),
        examples=sum(meta.counts),
        shape=meta.feature_shape,
        fingerprint=meta.fingerprint,
        rows=tuple(rows),
        spec=spec,
        value_range=getattr(meta.preprocessing, "value_range", None),
        resample=getattr(meta.preprocessing, "resample", None),
        notes=notes,
    )
