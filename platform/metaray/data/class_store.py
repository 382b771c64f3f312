"""N-way K-shot tasks from the classes of a store file."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from math import comb
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from metaray.data.access import without_access
from metaray.data.draws import Draws, Split
from metaray.data.preprocessing import ImagePreprocessing
from metaray.data.remote import held, is_remote, local_path
from metaray.data.servers import shown
from metaray.data.source import Source
from metaray.data.store_file import StoreFile, StoreMeta, read_store
from metaray.data.task import Side, Task
from metaray.data.verified import open_store, stamp
from metaray.errors import InputError, unknown

QUARTER_TURNS = 4


class SplitSummary(NamedTuple):
    """What `describe` prints of one meta-split: its classes (rotations count) and the examples they have."""

    classes: int
    examples: int
    min_per_class: int
    median_per_class: float
    max_per_class: int


class ClassStore(Source):
    """Tasks over the classes of a store file.

    Attributes:
        path: of the store file; or a URI (file://, http://, https://, s3://), fetched once by each node that opens it.
            What signs an http address is no part of it: see `metaray.data.access`.
        split: name of the split scheme, one of those in the file.
        rotations: each class also turned by 90, 180 and 270 degrees, as three more classes of the same meta-split;
            turned when sampled, never stored. Global class ids are then base class * 4 + quarter turns.
        mean: subtracted from pixels scaled to 0 .. 1, one number or one a channel; None leaves it to the store, whose
            importers subtract nothing. `metaray data describe` measures it on the classes of meta-train.
        std: that they are then divided by, likewise. Learners keep both, for new images.
    """

    kind: ClassVar[str] = "class_store"
    left_out_of_json: ClassVar[tuple[str, ...]] = ("mean", "std")

    path: str = Field(min_length=1)
    split: str = "default"
    rotations: bool = False
    mean: tuple[float, ...] | None = Field(default=None, min_length=1)
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(default=None, min_length=1)

    @field_validator("path")
    @classmethod
    def _known_scheme(cls, path: str) -> str:
        # Experiments are stored with checkpoints, in MLflow and in learners, for others to read.
        return without_access(path) if is_remote(path) else path

    @model_validator(mode="after")
    def _normalises_whole(self) -> Self:
        if (self.mean is None) != (self.std is None):
            lacking = "mean" if self.mean is None else "std"
            raise ValueError(f"{lacking} is missing: inputs are normalised by mean and std together")
        return self

    @property
    def preprocessing(self) -> ImagePreprocessing:
        """What turned raw images into the examples, and what normalises these.

        Raises:
            InputError: `mean` or `std` do not fit the channels.
        """
        stored = self.meta.preprocessing
        if self.mean is None:
            return stored
        return type(stored).parse({**dict(stored), "mean": self.mean, "std": self.std}, where=shown(self.path))

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return self.meta.feature_shape

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the file's own fingerprint, the split scheme and the rotations."""
        parts = f"{self.meta.fingerprint}\n{self.split}\n{self.rotations}"
        return hashlib.sha256(parts.encode()).hexdigest()

    @property
    def stamp(self) -> tuple[int, ...]:
        """The file's size, times and inode. A fetched one stays what it was when this process opened it."""
        if is_remote(self.path):
            return ()
        path = local_path(self.path)
        try:
            return stamp(path)
        except (OSError, ValueError):
            read_store(path)  # says what is wrong
            raise

    def verify(self) -> None:
        """Read the whole file and compare it with its fingerprint, whatever this node knows of it.

        Raises:
            InputError: if it is damaged.
        """
        with held(self.path) as local:
            open_store(local, verify=True)

    @property
    def meta(self) -> StoreMeta:
        """The file's description."""
        return self._open().file.meta

    def check(self, split: Split, *, ways: int, shots: int, queries: int) -> None:
        """Check that `split` has enough classes with enough examples, and that there is something to tell apart.

        Raises:
            InputError: with the numbers.
        """
        if ways < 2:
            raise InputError(f"ways: a task needs at least 2 classes (got {ways})")
        opened = self._open()
        per_class = shots + queries
        eligible = len(opened.eligible(split, per_class)) * opened.turns
        if eligible < ways:
            raise InputError(
                f"{ways} ways asked for, but {split} has {_some(eligible, 'class', 'classes')} with at least "
                f"{_some(per_class, 'example')} ({_some(shots, 'shot')} + {_some(queries, 'query', 'queries')}); "
                f"{_some(len(opened.classes[split]) * opened.turns, 'class', 'classes')} in all ({shown(self.path)})"
            )

    def sample_task(self, draws: Draws, split: Split, *, ways: int, shots: int, queries: int) -> Task:
        """Draw `ways` classes, then `shots + queries` examples of each, all without replacement.

        Raises:
            InputError: `split` has too few classes or examples.
        """
        opened = self._open()
        eligible = opened.eligible(split, shots + queries)
        population = len(eligible) * opened.turns
        if population < ways:
            self.check(split, ways=ways, shots=shots, queries=queries)
        chosen = draws.choose(np.array([population], dtype=np.int64), ways)[0]
        base, turns = eligible[chosen // opened.turns], chosen % opened.turns
        start = opened.file.offsets[base]
        rows = start[:, None] + draws.choose(opened.file.offsets[base + 1] - start, shots + queries)
        labels = np.arange(ways, dtype=np.int64)
        return Task(
            support=Side(_gather(opened.file.images, rows[:, :shots], turns), labels.repeat(shots)),
            query=Side(_gather(opened.file.images, rows[:, shots:], turns), labels.repeat(queries)),
            class_ids=base * opened.turns + turns,
        )

    def count_tasks(self, split: Split, *, ways: int, shots: int, queries: int) -> int:
        """How many distinct tasks there are; a task is a set of classes, each with a support and a query set.

        The elementary symmetric polynomial of degree `ways` in the classes' own numbers of choices
        comb(n, shots) * comb(n - shots, queries), exactly.
        """
        opened = self._open()
        sizes = opened.sizes(split).tolist()
        choices = Counter(comb(n, shots) * comb(max(n - shots, 0), queries) for n in sizes)
        return _elementary_symmetric({w: m * opened.turns for w, m in choices.items()}, ways)

    def class_name(self, class_id: int) -> str:
        """The class's name, as in "Greek/character03", with "/rot090" where rotations are classes."""
        base, turn = divmod(class_id, self._open().turns)
        name = self.meta.class_names[base]
        return f"{name}/rot{turn * 90:03d}" if self.rotations else name

    def num_classes(self, split: Split) -> int:
        """How many classes `split` has, rotations included."""
        opened = self._open()
        return len(opened.classes[split]) * opened.turns

    def places(self, split: Split, class_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The place of each class among those of `split`."""
        opened = self._open()
        places: NDArray[np.int64] = opened.places[class_ids // opened.turns] * opened.turns + class_ids % opened.turns
        return places

    def num_examples(self, split: Split) -> int:
        """How many examples `split` has; each turned one counts where rotations are classes."""
        opened = self._open()
        return int(opened.sizes(split).sum()) * opened.turns

    def draw_examples(self, draws: Draws, split: Split, count: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Draw examples, uniformly over all of `split`; see `Source.draw_examples`.

        Raises:
            InputError: `split` has too few.
        """
        opened = self._open()
        population = self.num_examples(split)
        if population < count:
            found = _some(population, "example")
            raise InputError(
                f"{_some(count, 'example')} asked for, but {split} has {found} in all ({shown(self.path)})"
            )
        places = draws.choose(np.array([population], dtype=np.int64), count)[0]
        example, turns = places // opened.turns, places % opened.turns
        ends = np.cumsum(opened.sizes(split))
        run = np.searchsorted(ends, example, side="right")
        rows = opened.file.offsets[opened.classes[split][run] + 1] - (ends[run] - example)
        return _gather(opened.file.images, rows[:, None], turns), places

    def class_ids(self, split: Split) -> NDArray[np.int64]:
        """[classes] the global ids of all classes of `split`, with their rotations."""
        opened = self._open()
        return (opened.classes[split][:, None] * opened.turns + np.arange(opened.turns)).reshape(-1)

    def examples(self, class_id: int) -> NDArray[Any]:
        """[n, *feature] a copy of all examples of one class."""
        opened = self._open()
        base, turn = divmod(class_id, opened.turns)
        rows = np.arange(opened.file.offsets[base], opened.file.offsets[base + 1])
        return _gather(opened.file.images, rows[None], np.array([turn]))

    def summary(self, split: Split) -> SplitSummary:
        """Classes and examples of one meta-split; all zero if it has no classes."""
        opened = self._open()
        sizes = opened.sizes(split)
        if not len(sizes):
            return SplitSummary(0, 0, 0, 0.0, 0)
        classes, examples = len(sizes) * opened.turns, int(sizes.sum()) * opened.turns
        return SplitSummary(classes, examples, int(sizes.min()), float(np.median(sizes)), int(sizes.max()))

    def _open(self) -> "_Opened":
        # Kept by the file's identity and not on the instance: the description stays a value that compares, copies and
        # pickles by its fields, and a store that was imported again is seen. A fetched one stays what it was when this
        # process opened it: no server is asked again.
        return _open(self.path, self.split, self.rotations, self.stamp)


@dataclass(frozen=True)
class _Opened:
    """A store file seen through one split scheme.

    Attributes:
        file: the store.
        classes: base class ids of each split.
        turns: 4 with rotations, else 1.
        places: of each base class among those of its split.
    """

    file: StoreFile
    classes: dict[Split, NDArray[np.int64]]
    turns: int
    places: NDArray[np.int64]

    def sizes(self, split: Split) -> NDArray[np.int64]:
        """The number of examples of each base class of `split`."""
        classes = self.classes[split]
        return self.file.offsets[classes + 1] - self.file.offsets[classes]

    def eligible(self, split: Split, examples: int) -> NDArray[np.int64]:
        """The base classes of `split` with at least `examples` examples."""
        return self.classes[split][self.sizes(split) >= examples]


@lru_cache(maxsize=16)
def _open(path: str, scheme: str, rotations: bool, _stamp: tuple[int, ...]) -> _Opened:
    with held(path) as local:
        file = open_store(local)
    if scheme not in file.meta.schemes:
        raise unknown(f"split scheme of {shown(path)}", scheme, file.meta.schemes)
    shape = file.meta.feature_shape
    if rotations and (len(shape) < 2 or shape[-1] != shape[-2]):
        raise InputError(f"{shown(path)}: rotations need square images, but an example has the shape {shape}")
    classes: dict[Split, NDArray[np.int64]] = {"meta-train": _ids(), "meta-val": _ids(), "meta-test": _ids()}
    classes |= {split: _ids(ids) for split, ids in file.meta.schemes[scheme].items()}
    places = np.zeros(len(file.meta.class_names), dtype=np.int64)
    for ids in classes.values():
        places[ids] = np.arange(len(ids))
    return _Opened(file, classes, QUARTER_TURNS if rotations else 1, places)


def _ids(ids: tuple[int, ...] = ()) -> NDArray[np.int64]:
    return np.array(ids, dtype=np.int64)


def _gather(images: NDArray[Any], rows: NDArray[np.int64], turns: NDArray[np.int64]) -> NDArray[Any]:
    """Copy the examples at `rows` [classes, n], class r turned by turns[r] quarters: [classes * n, *feature]."""
    out = np.empty((*rows.shape, *images.shape[1:]), images.dtype)
    # The rows are in range by construction; numpy's default mode would buffer the output to check them.
    np.take(images, rows, axis=0, out=out, mode="clip")
    for quarters in range(1, QUARTER_TURNS):
        turned = turns == quarters
        if turned.any():
            out[turned] = np.rot90(out[turned], quarters, axes=(-2, -1))
    return out.reshape(-1, *images.shape[1:])


def _elementary_symmetric(multiplicities: dict[int, int], degree: int) -> int:
    """The coefficient of t**degree in the product of (1 + w*t)**m over the items w: m."""
    total = [1] + [0] * degree
    for weight, times in multiplicities.items():
        factor = [comb(times, j) * weight**j for j in range(degree + 1)]
        total = [sum(total[i] * factor[d - i] for i in range(d + 1)) for d in range(degree + 1)]
    return total[degree]


def _some(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
