"""N-way K-shot tasks from the classes of a store file."""

import hashlib
from functools import lru_cache
from typing import Annotated, Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator, model_validator

from metaray.data.access import without_access
from metaray.data.class_sampling import count_tasks, draw_task, draw_tasks, require_tasks
from metaray.data.drawn_tasks import stack_of, task_of
from metaray.data.draws import Draws, Split
from metaray.data.episode_spec import EpisodeSpec
from metaray.data.gathering import gathered
from metaray.data.many_draws import ManyDraws
from metaray.data.names import counted
from metaray.data.opened_store import OpenedStore, open_scheme
from metaray.data.preprocessing import Preprocessing
from metaray.data.ragged import Compact, FeatureShape, is_ragged
from metaray.data.remote import held, is_remote, local_path
from metaray.data.rows import places, turned_places
from metaray.data.servers import shown
from metaray.data.source import Source
from metaray.data.store_file import StoreMeta, read_store
from metaray.data.store_preprocessing import prepared
from metaray.data.task import Task, stacks_of
from metaray.data.verified import open_store, stamp_of
from metaray.errors import InputError
from metaray.imports import TRUST_ALL, trust_of


class SplitSummary(NamedTuple):
    """Numbers of classes (rotations included) and examples of one meta-split."""

    classes: int
    examples: int
    min_per_class: int
    median_per_class: float
    max_per_class: int


class ClassStore(Source):
    """N-way tasks over the classes of a store file, which `metaray data import` or `write_class_store` writes.

    Attributes:
        path: Path of the store file, or its URI (file://, http://, https://, s3://). Each node that opens a URI fetches
            the file once. Signatures of http addresses are not part of it: see `metaray.data.access`.
        split: Name of the split scheme, one of those in the file.
        rotations: Whether each class turned by 90, 180 and 270 degrees counts as three more classes of the same
            meta-split. Examples are turned when sampled, never stored. Global class ids are then base class * 4 +
            quarter turns.
        within_groups: Whether all classes of a task, rotations included, are of one group (alphabet, superclass,
            domain). The group is drawn uniformly, whatever its size, among those with enough classes.
        mean: Mean subtracted from pixels scaled to 0 .. 1, one number or one for each channel. None takes the store's
            own, which is 0 in imported stores. `metaray data describe` measures the mean of meta-train.
        std: Standard deviation by which these are then divided, one number or one for each channel. Learners keep both
            for new images.
    """

    kind: ClassVar[str] = "class_store"
    left_out_of_json: ClassVar[tuple[str, ...]] = ("within_groups", "mean", "std")

    path: str = Field(min_length=1)
    split: str = "default"
    rotations: bool = False
    within_groups: bool = False
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

    @model_validator(mode="after")
    def _imports_as_allowed(self, info: ValidationInfo) -> "ClassStore":
        # Beside the fields, of which alone descriptions are compared and written: what the file names as its
        # preprocessing is imported only from where an experiment of that origin may import from.
        self.__dict__["trust"] = trust_of(info)
        return self

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing that turned raw inputs into the examples of the file.

        Raises:
            InputError: If it is code of the user's own that cannot be found or is not trusted, or if it says that
                examples have another shape.
        """
        meta, trust = self.meta, self.__dict__.get("trust", (TRUST_ALL,))
        found = prepared(meta.preprocessing, meta.feature_shape, meta.dtype, trust=trust, where=shown(self.path))
        return found if self.mean is None else self._normalised(found)

    def _normalised(self, stored: Preprocessing) -> Preprocessing:
        if not {"mean", "std"} <= type(stored).model_fields.keys():
            raise InputError(
                f"{shown(self.path)}: mean and std are given, which its preprocessing {stored.kind!r} does not have"
            )
        return type(stored).parse({**dict(stored), "mean": self.mean, "std": self.std}, where=shown(self.path))

    @property
    def feature_shape(self) -> FeatureShape:
        """Shape of one example."""
        return self.meta.feature_shape

    @property
    def drawn_together(self) -> str:
        """The protocol note "classes of one group" if `within_groups`, otherwise an empty text."""
        return "classes of one group" if self.within_groups else ""

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the file's own fingerprint, the split scheme, rotations, and groups if they matter."""
        meta = self.meta
        parts = f"{meta.fingerprint}\n{self.split}\n{self.rotations}"
        if self.within_groups and meta.groups is not None:
            parts += f"\n{meta.groups.fingerprint}"
        return hashlib.sha256(parts.encode()).hexdigest()

    @property
    def stamp(self) -> tuple[int, ...]:
        """Size, times and inode of the file; for a fetched file, as they were when this process opened it."""
        if is_remote(self.path):
            return ()
        return stamp_of(local_path(self.path), read_store)

    def verify(self) -> None:
        """Read the whole file and compare it with its fingerprint, even if that was done before.

        Raises:
            InputError: If the file is damaged.
        """
        with held(self.path) as local:
            open_store(local, verify=True)

    @property
    def meta(self) -> StoreMeta:
        """The file's metadata."""
        return self._open().file.meta

    def check(self, split: Split, spec: EpisodeSpec) -> None:
        """Check that `split` has enough classes with enough examples, and that tasks have classes to tell apart.

        Raises:
            InputError: If there are too few of them, or nothing to tell apart; the message has the numbers.
        """
        require_tasks(self._open(), split, spec, shown(self.path))

    def sample_task(self, draws: Draws, split: Split, spec: EpisodeSpec) -> Task:
        """Draw classes, then examples of each class, both without replacement; see `draw_task`.

        Raises:
            InputError: If `split` has too few classes or examples.
        """
        opened = self._open()
        drawn = draw_task(opened, split, spec, draws)
        if drawn is None:
            self.check(split, spec)
        assert drawn is not None
        return task_of(opened, drawn)

    def sample_tasks(self, draws: ManyDraws, split: Split, spec: EpisodeSpec) -> list[Task]:
        """Sample tasks of fixed size together, with one gather for each side; others one by one by `sample_task`.

        Ragged examples and tasks of unequal size are among the others.

        Raises:
            InputError: If `split` has too few classes or examples.
        """
        opened = self._open()
        if not spec.is_fixed or is_ragged(opened.file.meta.feature_shape):
            return super().sample_tasks(draws, split, spec)
        drawn = draw_tasks(opened, split, spec, draws)
        if drawn is None:
            self.check(split, spec)
        assert drawn is not None
        return [stack_of(task_of(opened, drawn), len(draws))]

    @property
    def lasting_examples(self) -> NDArray[Any] | None:
        """All examples of the file; None if they are ragged, or if a subclass may change them."""
        examples = self._open().file.examples
        return examples if type(self) is ClassStore and isinstance(examples, np.ndarray) else None

    def sample_rows(self, draws: ManyDraws, split: Split, spec: EpisodeSpec) -> list[Task]:
        """Sample tasks as `sample_tasks` does, with indices into `lasting_examples` in place of inputs.

        Nothing is copied.

        Raises:
            InputError: If `split` has too few classes or examples.
        """
        opened = self._open()
        if spec.is_fixed:
            drawn = [draw_tasks(opened, split, spec, draws)]
        else:
            drawn = [draw_task(opened, split, spec, one) for one in draws.each()]
        if any(one is None for one in drawn):
            self.check(split, spec)
        inputs = turned_places if self.rotations else places
        tasks = [task_of(opened, one, inputs) for one in drawn if one is not None]
        return [stack_of(tasks[0], len(draws))] if spec.is_fixed else stacks_of(tasks)

    def count_tasks(self, split: Split, spec: EpisodeSpec) -> int:
        """Number of distinct tasks: a set of classes, each with a support set and a query set.

        It is exact if shots and queries are numbers, and a lower bound for ranges and for Meta-Dataset's sampling.
        """
        return count_tasks(self._open(), split, spec)

    def class_name(self, class_id: int) -> str:
        """Name of a class, as in "Greek/character03", with "/rot090" if rotations are classes."""
        base, turn = divmod(class_id, self._open().turns)
        name = self.meta.class_names[base]
        return f"{name}/rot{turn * 90:03d}" if self.rotations else name

    def num_classes(self, split: Split) -> int:
        """Number of classes in `split`, rotations included."""
        opened = self._open()
        return len(opened.classes[split]) * opened.turns

    def places(self, split: Split, class_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Index of each class among the classes of `split`."""
        opened = self._open()
        places: NDArray[np.int64] = opened.places[class_ids // opened.turns] * opened.turns + class_ids % opened.turns
        return places

    def num_examples(self, split: Split) -> int:
        """Number of examples in `split`; each turned example counts if rotations are classes."""
        opened = self._open()
        return int(opened.sizes(split).sum()) * opened.turns

    def draw_examples(self, draws: Draws, split: Split, count: int) -> tuple[Compact, NDArray[np.int64]]:
        """Draw examples uniformly over all of `split`; see `Source.draw_examples`.

        Raises:
            InputError: If `split` has too few examples.
        """
        opened = self._open()
        population = self.num_examples(split)
        if population < count:
            found = counted(population, "example")
            raise InputError(
                f"{counted(count, 'example')} asked for, but {split} has {found} in all ({shown(self.path)})"
            )
        places = draws.choose(np.array([population], dtype=np.int64), count)[0]
        example, turns = places // opened.turns, places % opened.turns
        ends = np.cumsum(opened.sizes(split))
        run = np.searchsorted(ends, example, side="right")
        rows = opened.file.offsets[opened.classes[split][run] + 1] - (ends[run] - example)
        return gathered(opened.file.examples, (rows[:, None], turns))[0], places

    def class_ids(self, split: Split) -> NDArray[np.int64]:
        """Global ids [classes] of all classes of `split`, rotations included."""
        opened = self._open()
        return (opened.classes[split][:, None] * opened.turns + np.arange(opened.turns)).reshape(-1)

    def examples(self, class_id: int) -> Compact:
        """A copy of all examples of one class, [n, *feature]."""
        opened = self._open()
        base, turn = divmod(class_id, opened.turns)
        rows = np.arange(opened.file.offsets[base], opened.file.offsets[base + 1])
        return gathered(opened.file.examples, (rows[None], np.array([turn])))[0]

    def summary(self, split: Split) -> SplitSummary:
        """Numbers of classes and examples of a meta-split; all zero if it has no classes."""
        opened = self._open()
        sizes = opened.sizes(split)
        if not len(sizes):
            return SplitSummary(0, 0, 0, 0.0, 0)
        classes, examples = len(sizes) * opened.turns, int(sizes.sum()) * opened.turns
        return SplitSummary(classes, examples, int(sizes.min()), float(np.median(sizes)), int(sizes.max()))

    def _open(self) -> OpenedStore:
        # Kept by the file's identity and not on the instance: the description stays a value that compares, copies and
        # pickles by its fields, and a store that was imported again is seen. A fetched one stays what it was when this
        # process opened it: no server is asked again.
        return _open(self.path, self.split, self.rotations, self.within_groups, self.stamp)


@lru_cache(maxsize=16)
def _open(path: str, scheme: str, rotations: bool, within_groups: bool, _stamp: tuple[int, ...]) -> OpenedStore:
    return open_scheme(path, scheme, rotations=rotations, within_groups=within_groups)
