"""Tasks from unlabelled examples: classes are clusters of what an encoder makes of them."""

import hashlib
import json
from functools import lru_cache
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from metaray.data.access import without_access
from metaray.data.class_sampling import DrawnTask, count_tasks, draw_task, draw_tasks
from metaray.data.class_store import ClassStore
from metaray.data.drawn_tasks import stack_of, task_of
from metaray.data.draws import Draws, Split
from metaray.data.episode_spec import EpisodeSpec
from metaray.data.gathering import gathered
from metaray.data.glyphs import Glyphs
from metaray.data.many_draws import ManyDraws
from metaray.data.meta_dataset import LEAST_EXAMPLES
from metaray.data.names import counted
from metaray.data.opened_store import OpenedStore
from metaray.data.partitions import Partitions, open_partitions, partitions_stamp
from metaray.data.preprocessing import Preprocessing
from metaray.data.ragged import FeatureShape, is_ragged
from metaray.data.remote import held, is_remote
from metaray.data.rows import places, turned_places
from metaray.data.servers import shown
from metaray.data.source import Source
from metaray.data.store_file import StoreFile
from metaray.data.task import Task, stacks_of
from metaray.data.verified import open_store
from metaray.errors import InputError
from metaray.imports import reads_kind, writes_kind

WRAPPED: dict[str, type[Source]] = {"class_store": ClassStore, "glyphs": Glyphs}
"""The sources whose examples can have been clustered."""
RECIPE_VERSION = 1
"""Version of this recipe; raise it whenever the same settings would give other tasks."""


class CACTUs(Source):
    """Unsupervised meta-training on clusters of another source's examples, evaluated on its labelled classes.

    Hsu, Levine and Finn ("Unsupervised learning via meta-learning", ICLR 2019, arXiv:1810.02334, algorithm 1): a task
    takes one of several partitions, of that N clusters, and of each as many examples as shots and queries ask for, all
    uniformly and without replacement; clusters with fewer are left aside. The network sees the examples themselves,
    never the vectors that were clustered. Labels of meta-train are never looked at; meta-val and meta-test are those of
    the wrapped source, labels and all.

    The paper's margin keeps examples away from the random hyperplanes of another way to part them; k-means has none.
    Clusters are of the examples as they lie: where the wrapped source takes rotations for classes, it judges on these.

    Attributes:
        source: Source whose examples were clustered: a class store, or the glyphs.
        partitions: Path or URI of the file that `metaray data cluster` wrote for these examples.
    """

    kind: ClassVar[str] = "cactus"

    source: Annotated[Source, reads_kind(WRAPPED, Source, what="source of examples"), writes_kind(WRAPPED)]
    partitions: str = Field(min_length=1)

    @field_validator("source")
    @classmethod
    def _has_rows(cls, source: Source) -> Source:
        if not isinstance(source, ClassStore | Glyphs):
            raise ValueError(f"cactus takes the examples of a class_store or of glyphs, not of {source.kind}")
        return source

    @field_validator("partitions")
    @classmethod
    def _known_scheme(cls, path: str) -> str:
        return without_access(path) if is_remote(path) else path

    @property
    def store(self) -> ClassStore:
        """The wrapped source as a class store."""
        found = self.source.store if isinstance(self.source, Glyphs) else self.source
        assert isinstance(found, ClassStore)
        return found

    @property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing of the wrapped source."""
        return self.source.preprocessing

    @property
    def feature_shape(self) -> FeatureShape:
        """Shape of one example of the wrapped source."""
        return self.source.feature_shape

    @property
    def drawn_together(self) -> str:
        """Protocol note of the wrapped source on which classes meet in a task."""
        return self.source.drawn_together

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the fingerprints of the source and the partitions, and this recipe's version."""
        parts = {"wrapped": self.source.fingerprint, "recipe": [self.kind, RECIPE_VERSION]}
        parts["partitions"] = self._open().found.fingerprint
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def stamp(self) -> tuple[int, ...]:
        """Stamps of the wrapped source and of the partitions."""
        return (*self.source.stamp, *partitions_stamp(self.partitions))

    def verify(self) -> None:
        """Verify the wrapped source and the partitions."""
        self.source.verify()
        with held(self.partitions) as local:
            open_store(local, verify=True)

    def check(self, split: Split, spec: EpisodeSpec) -> None:
        """Check that a partition has enough clusters with enough examples, and that the wrapped source has enough.

        Meta-train needs clusters; meta-val and meta-test are checked by the wrapped source.

        Raises:
            InputError: If there are too few clusters or examples, with the numbers.
        """
        if split != "meta-train":
            self.source.check(split, spec)
            return
        if spec.fewest_ways < 2:
            raise InputError(f"ways: a task needs at least 2 classes (got {spec.fewest_ways})")
        plain = spec.sampling == "plain"
        least, ways = (spec.largest.least_examples, spec.most_ways) if plain else (LEAST_EXAMPLES, spec.fewest_ways)
        clusters = self._open().clusters
        most = int(clusters.pools(split, least).sizes.max())
        if most < ways:
            found = self._open().found
            raise InputError(
                f"{ways} ways asked for, but of {counted(len(found.partition) // found.clusters, 'partition')} into "
                f"{found.clusters} clusters none has more than {counted(most, 'cluster')} with at least "
                f"{counted(least, 'example')} ({shown(self.partitions)}); ask for fewer shots and queries, or make "
                "fewer and larger clusters"
            )

    def sample_task(self, draws: Draws, split: Split, spec: EpisodeSpec) -> Task:
        """A partition, clusters of it and examples of these in meta-train; else a task of the wrapped source.

        Raises:
            InputError: If `split` has too few clusters or examples.
        """
        if split != "meta-train":
            return self.source.sample_task(draws, split, spec)
        opened = self._open()
        return opened.task(self._drawn(draw_task(opened.clusters, split, spec, draws), spec))

    def sample_tasks(self, draws: ManyDraws, split: Split, spec: EpisodeSpec) -> list[Task]:
        """Sample several tasks at once, as `ClassStore` does.

        Raises:
            InputError: If `split` has too few clusters or examples.
        """
        if split != "meta-train":
            return self.source.sample_tasks(draws, split, spec)
        if not spec.is_fixed or is_ragged(self.feature_shape):
            return super().sample_tasks(draws, split, spec)
        opened = self._open()
        drawn = self._drawn(draw_tasks(opened.clusters, split, spec, draws), spec)
        return [stack_of(opened.task(drawn), len(draws))]

    @property
    def lasting_examples(self) -> NDArray[Any] | None:
        """All examples of the wrapped source, if every task takes its inputs from them unchanged."""
        return self.store.lasting_examples

    def sample_rows(self, draws: ManyDraws, split: Split, spec: EpisodeSpec) -> list[Task]:
        """Sample several tasks as indices of the store's examples, as `ClassStore` does.

        Raises:
            InputError: If `split` has too few clusters or examples.
        """
        if split != "meta-train":
            return self.store.sample_rows(draws, split, spec)
        opened = self._open()
        if spec.is_fixed:
            drawn = [draw_tasks(opened.clusters, split, spec, draws)]
        else:
            drawn = [draw_task(opened.clusters, split, spec, one) for one in draws.each()]
        inputs = turned_places if self.store.rotations else places
        tasks = [opened.task(self._drawn(one, spec), inputs) for one in drawn]
        return [stack_of(tasks[0], len(draws))] if spec.is_fixed else stacks_of(tasks)

    def count_tasks(self, split: Split, spec: EpisodeSpec) -> int:
        """Number of tasks, over the clusters of each partition; a task that two partitions can give counts twice."""
        if split != "meta-train":
            return self.source.count_tasks(split, spec)
        return count_tasks(self._open().clusters, split, spec)

    def num_classes(self, split: Split) -> int:
        """Number of clusters of all partitions for meta-train; otherwise the wrapped source's number of classes."""
        return len(self._open().found.partition) if split == "meta-train" else self.source.num_classes(split)

    def places(self, split: Split, class_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Index of each cluster for meta-train; otherwise the wrapped source's index of each class."""
        return -1 - class_ids if split == "meta-train" else self.source.places(split, class_ids)

    def class_name(self, class_id: int) -> str:
        """Name of a class; "cluster 17 of partition 3", for instance, for clusters, whose ids are negative."""
        if class_id >= 0:
            return self.source.class_name(class_id)
        partition, cluster = divmod(-1 - class_id, self._open().found.clusters)
        return f"cluster {cluster} of partition {partition}"

    def num_examples(self, split: Split) -> int:
        """Number of examples of the wrapped source in `split`."""
        return self.source.num_examples(split)

    def draw_examples(self, draws: Draws, split: Split, count: int) -> tuple[Any, NDArray[np.int64]]:
        """Draw examples of the wrapped source; see `Source.draw_examples`."""
        return self.source.draw_examples(draws, split, count)

    def _drawn(self, drawn: DrawnTask | None, spec: EpisodeSpec) -> DrawnTask:
        if drawn is None:
            self.check("meta-train", spec)
        assert drawn is not None
        return drawn

    def _open(self) -> "_Clustered":
        # Kept by the files' identity, as class stores are.
        return _open(self.store, self.partitions, self.stamp)


class _Clustered:
    """Clusters of an open store, which are drawn as though they were its classes, and partitions its groups."""

    def __init__(self, file: StoreFile, found: Partitions) -> None:
        self.examples, self.found = file.examples, found
        ids = np.arange(len(found.partition))
        clusters = StoreFile(file.path, file.meta, examples=(), offsets=found.offsets)
        self.clusters = OpenedStore(clusters, {"meta-train": ids}, turns=1, places=ids, groups=found.partition)
        self._whole = OpenedStore(file, {"meta-train": ids}, turns=1, places=ids, groups=None)

    def task(self, drawn: DrawnTask, inputs: Any = gathered) -> Task:
        """The task, of the examples behind places in the clusters; ids of clusters lie below zero."""
        order = self.found.order
        drawn = drawn._replace(support=order[drawn.support], query=order[drawn.query])
        task = task_of(self._whole, drawn, inputs)
        return task._replace(class_ids=-1 - task.class_ids)


@lru_cache(maxsize=8)
def _open(store: ClassStore, partitions: str, _stamp: tuple[int, ...]) -> _Clustered:
    file = store._open().file
    return _Clustered(file, open_partitions(partitions, file, store.split, shown(store.path)))
