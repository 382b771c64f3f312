"""What a store holds, for people who decide on an experiment."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from metaray.data.class_store import ClassStore
from metaray.data.draws import SPLITS, Split
from metaray.data.episode_spec import EpisodeSpec
from metaray.data.glyphs import glyph_store
from metaray.data.groups import across_splits, sizes_of
from metaray.data.normalisation import Normalisation, measured
from metaray.data.pictures import ValueRange
from metaray.data.preprocessing import Resample
from metaray.data.ragged import FeatureShape
from metaray.data.remote import held
from metaray.data.store_file import Schemes
from metaray.data.uniform import uniform_classes
from metaray.data.verified import open_store
from metaray.errors import InputError, unknown


@dataclass(frozen=True)
class Row:
    """Statistics of one part of a split scheme.

    Attributes:
        scheme: Name of the split scheme.
        part: "meta-train", "meta-val" or "meta-test".
        classes: Number of classes in the part, rotations counted.
        sizes: Number of examples of a class, "min / median / max".
        episodes: Number of distinct episodes of the given spec; 0 if there are too few classes or examples.
    """

    scheme: str
    part: Split
    classes: int
    sizes: str
    episodes: int


@dataclass(frozen=True)
class GroupRow:
    """The groups of one part of one split scheme.

    Attributes:
        scheme: Name of the split scheme.
        part: "meta-train", "meta-val" or "meta-test".
        groups: Names of the groups with classes in the part.
        sizes: Number of classes of a group, "min / median / max", without rotations.
    """

    scheme: str
    part: Split
    groups: tuple[str, ...]
    sizes: str


@dataclass(frozen=True)
class Groups:
    """How the classes of a store are grouped.

    Attributes:
        count: Number of groups.
        sizes: Number of classes of a group in the whole file, "min / median / max", without rotations.
        rows: Statistics of each scheme's parts.
        across: Groups that have classes in more than one part, for each split scheme.
    """

    count: int
    sizes: str
    rows: tuple[GroupRow, ...]
    across: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Description:
    """The description of a store that `metaray data describe` prints.

    Attributes:
        source: The store under its first scheme, from which a gallery is drawn.
        classes: Number of classes in the file.
        examples: Number of examples in the file.
        shape: Shape of one example; the first axis is None where they are ragged.
        fingerprint: Fingerprint of the file.
        rows: Statistics of each scheme's parts.
        spec: Spec of the episodes that are counted.
        groups: How the classes are grouped; None if the store has no groups.
        value_range: Range that images of more than 8 bits were scaled by; None if there were none.
        resample: Filter that resized the images, and that resizes new images for learners; None if there are no images.
        notes: Suspicious properties of the examples, one sentence each.
        normalisations: Mean and standard deviation of the channels in the meta-train of each split scheme.
    """

    source: ClassStore
    classes: int
    examples: int
    shape: FeatureShape
    fingerprint: str
    rows: tuple[Row, ...]
    spec: EpisodeSpec
    groups: Groups | None
    value_range: ValueRange | None
    resample: Resample | None
    notes: tuple[str, ...]
    normalisations: dict[str, Normalisation]

    def to_dict(self) -> dict[str, Any]:
        """The description in JSON types."""
        return {
            "classes": self.classes,
            "examples": self.examples,
            "shape": list(self.shape),
            "fingerprint": self.fingerprint,
            "value_range": self.value_range,
            "resample": self.resample,
            "notes": list(self.notes),
            "spec": self.spec.model_dump(mode="json"),
            **({} if self.groups is None else {"groups": asdict(self.groups)}),
            "normalisation": {name: one._asdict() for name, one in self.normalisations.items()},
            "splits": [asdict(row) for row in self.rows],
        }


def describe_store(
    store: str,
    scheme: str | None,
    spec: EpisodeSpec,
    *,
    rotations: bool = False,
    within_groups: bool = False,
    verify: bool = False,
) -> Description:
    """Open a store file, verified now or earlier on this machine, and describe it.

    Args:
        store: Path of the store, or "glyphs" for the embedded one.
        scheme: Name of a split scheme; None describes all.
        spec: Spec of the episodes to count.
        rotations: Whether to count rotated classes.
        within_groups: Whether to count episodes whose classes are of one group.
        verify: Whether to verify the file now, even if that was done before.

    Raises:
        InputError: If the file is missing, damaged or not a store, or has no such scheme, or no groups although they
            are asked for.
    """
    if spec.fewest_ways < 2:
        raise InputError(f"ways: a task needs at least 2 classes (got {spec.fewest_ways})")
    path = str(glyph_store()) if store == "glyphs" else store
    with held(path) as local:
        file = open_store(local, verify=verify)
        meta, notes = file.meta, uniform_classes(file.examples, file.meta.counts, file.meta.class_names)
        normalisations = measured(file)
    if scheme is not None and scheme not in meta.schemes:
        raise unknown(f"split scheme of {store}", scheme, meta.schemes)
    rows: list[Row] = []
    sources = [
        ClassStore(path=path, split=name, rotations=rotations, within_groups=within_groups)
        for name in ([scheme] if scheme else meta.schemes)
    ]
    for source in sources:
        for part in SPLITS:
            summary = source.summary(part)
            sizes = f"{summary.min_per_class} / {summary.median_per_class:g} / {summary.max_per_class}"
            count = source.count_tasks(part, spec)
            rows.append(Row(source.split, part, summary.classes, sizes, count))
    return Description(
        source=sources[0],
        classes=len(meta.class_names),
        examples=sum(meta.counts),
        shape=meta.feature_shape,
        fingerprint=meta.fingerprint,
        rows=tuple(rows),
        spec=spec,
        groups=None if meta.groups is None else _groups(meta.groups.names, meta.schemes, [s.split for s in sources]),
        value_range=getattr(meta.preprocessing, "value_range", None),
        resample=getattr(meta.preprocessing, "resample", None),
        notes=notes,
        normalisations={name: one for name, one in normalisations.items() if scheme in (None, name)},
    )


def _groups(names: Sequence[str], schemes: Schemes, shown: Sequence[str]) -> Groups:
    rows: list[GroupRow] = []
    for scheme in shown:
        for part in SPLITS:
            found = sizes_of(names, schemes[scheme].get(part, ()))
            rows.append(GroupRow(scheme, part, tuple(found), _spread(found.values())))
    whole = sizes_of(names, range(len(names)))
    across = {scheme: tuple(across_splits(names, schemes[scheme])) for scheme in shown}
    return Groups(len(whole), _spread(whole.values()), tuple(rows), across)


def _spread(sizes: Collection[int]) -> str:
    return f"{min(sizes)} / {median(sizes):g} / {max(sizes)}" if sizes else "none"
