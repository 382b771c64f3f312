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
    """What `describe` prints of one meta-split: its classes (rotations count) and the examples they have."""

    classes: int
    examples: int
    min_per_class: int
    median_per_class: float
    max_per_class: int


class ClassStore(Source):
    """Tasks over the classes of a store file.

    Attributes:
        path: Path of the store file; or a URI (file://, http://, https://, s3://), fetched once by each node that opens
            it. What signs an http address is no part of it: see `metaray.data.access`.
        split: Name of the split scheme, one of those in the file.
        rotations: Each class also turned by 90, 180 and 270 degrees, as three more classes of the same meta-split;
            turned when sampled, never stored. Global class ids are then base class * 4 + quarter turns.
        within_groups: The classes of a task are all of one group (alphabet, superclass, domain), their rotations
            included: of one that is drawn uniformly, whatever its size, among those with enough classes for the task.
        mean: What is subtracted from pixels scaled to 0 .. 1, one number or one a channel; None leaves it to the store,
            whose importers subtract nothing. `metaray data describe` measures it on the classes of meta-train.
        std: What these are then divided by, one number or one a channel. Learners keep both, for new images.
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
        """What turned raw inputs into the examples.

        Raises:
            InputError: If that is code of a user's own that is not found, or that the experiment's origin does not
                allow for; or if it says that examples have another shape.
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
        """The shape of one example."""
        return self.meta.feature_shape

    @property
    def drawn_together(self) -> str:
        """Whether the classes of a task are of one group."""
        return "classes of one group" if self.within_groups else ""

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the file's own fingerprint, the split scheme, the rotations, and groups that count."""
        meta = self.meta
        parts = f"{meta.fingerprint}\n{self.split}\n{self.rotations}"
        if self.within_groups and meta.groups is not None:
            parts += f"\n{meta.groups.fingerprint}"
        return hashlib.sha256(parts.encode()).hexdigest()

    @property
    def stamp(self) -> tuple[int, ...]:
        """The file's size, times and inode. A fetched one stays what it was when this process opened it."""
        if is_remote(self.path):
            return ()
        return stamp_of(local_path(self.path), read_store)

    def verify(self) -> None:
        """Read the whole file and compare it with its fingerprint, whatever this node knows of it.

        Raises:
            InputError: If it is damaged.
        """
        with held(self.path) as local:
            open_store(local, verify=True)

    @property
    def meta(self) -> StoreMeta:
        """The file's description."""
        return self._open().file.meta

    def check(self, split: Split, spec: EpisodeSpec) -> None:
        """Check that `split` has enough classes with enough examples, and that there is something to tell apart.

        Raises:
            InputError: If there are too few of them, or nothing to tell apart; the message has the numbers.
        """
        require_tasks(self._open(), split, spec, shown(self.path))

    def sample_task(self, draws: Draws, split: Split, spec: EpisodeSpec) -> Task:
        """Draw classes, then examples of each, all without replacement; see `draw_task`.

        Raises:
            InputError: `split` has too few classes or examples.
        """
        opened = self._open()
        drawn = draw_task(opened, split, spec, draws)
        if drawn is None:
            self.check(split, spec)
        assert drawn is not None
        return task_of(opened, drawn)

    def sample_tasks(self, draws: ManyDraws, split: Split, spec: EpisodeSpec) -> list[Task]:
        """Tasks of fixed sizes all at once, with one gather for each side; ragged or unequal ones by `sample_task`.

        Raises:
            InputError: `split` has too few classes or examples.
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
        """All of the file; None where they are ragged, and of a class of one's own, which may make them otherwise."""
        examples = self._open().file.examples
        return examples if type(self) is ClassStore and isinstance(examples, np.ndarray) else None

    def sample_rows(self, draws: ManyDraws, split: Split, spec: EpisodeSpec) -> list[Task]:
        """The tasks of `sample_tasks`, with places among `lasting_examples` for inputs; nothing is copied.

        Raises:
            InputError: `split` has too few classes or examples.
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
        """How many distinct tasks there are, or more; a task is a set of classes, each with a support and a query set.

        Exactly for numbers of shots and queries, a lower bound for ranges and for Meta-Dataset's sampling.
        """
        return count_tasks(self._open(), split, spec)

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

    def draw_examples(self, draws: Draws, split: Split, count: int) -> tuple[Compact, NDArray[np.int64]]:
        """Draw examples, uniformly over all of `split`; see `Source.draw_examples`.

        Raises:
            InputError: `split` has too few.
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
        """[classes] the global ids of all classes of `split`, with their rotations."""
        opened = self._open()
        return (opened.classes[split][:, None] * opened.turns + np.arange(opened.turns)).reshape(-1)

    def examples(self, class_id: int) -> Compact:
        """[n, *feature] a copy of all examples of one class."""
        opened = self._open()
        base, turn = divmod(class_id, opened.turns)
        rows = np.arange(opened.file.offsets[base], opened.file.offsets[base + 1])
        return gathered(opened.file.examples, (rows[None], np.array([turn])))[0]

    def summary(self, split: Split) -> SplitSummary:
        """Classes and examples of one meta-split; all zero if it has no classes."""
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
