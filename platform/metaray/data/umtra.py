"""Tasks from unlabelled images: each class is one example and altered copies of it."""

import hashlib
import json
from math import comb
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from metaray.data.augmentation import Images, brightened, erased, flipped, shifted, turned
from metaray.data.class_store import ClassStore
from metaray.data.draws import Draws, Split
from metaray.data.episode_spec import EpisodeSpec
from metaray.data.glyphs import Glyphs
from metaray.data.many_draws import ManyDraws
from metaray.data.preprocessing import ImagePreprocessing, Preprocessing
from metaray.data.source import Source
from metaray.data.task import Side, Task
from metaray.errors import InputError
from metaray.imports import reads_kind, writes_kind
from metaray.tasks import Classification

# The sources that can be wrapped by name; any other that has `draw_examples` by its import path.
WRAPPED: dict[str, type[Source]] = {"class_store": ClassStore, "glyphs": Glyphs}
# Raise it whenever the same settings would give other tasks.
RECIPE_VERSION = 1


class UMTRA(Source):
    """Unsupervised meta-training on single examples of another source, evaluated on its labelled classes.

    Khodadadeh, Boloni and Shah ("Unsupervised meta-learning for few-shot image classification", NeurIPS 2019,
    arXiv:1811.11819, algorithm 1): N examples drawn from all unlabelled ones are taken for N classes, which among many
    classes they mostly are; each is its class's support, and an augmentation of it the query. Labels of meta-train are
    never looked at. Meta-val and meta-test are those of the wrapped source, labels and all.

    The defaults are the paper's augmentation for Omniglot, a random shift and randomly zeroed pixels, with the numbers
    of the authors' code. Departures: shifts are whole pixels; shots after a class's first are augmented as queries
    are (the paper trains on one); a source whose rotations are classes gives each turned example as one more example;
    the paper's learned policy for photographs (AutoAugment) is left out. Turns, scaling, flips and brightness are
    options that the paper's Omniglot does without, none on by itself. What is zeroed or moved in from outside is black
    where a store is not inverted, as paper is in one that is.

    Attributes:
        source: Source of the examples: any source of images that can draw them one by one.
        max_shift: Largest shift of a copy along either axis, in pixels.
        zero_share: Share of a copy's pixels set to zero, each independently.
        max_turn_degrees: Largest rotation of a copy, in degrees.
        max_scaling: Largest distance of a copy's scale from 1.
        flip: Whether to mirror half of the copies left to right; not for letters.
        max_brightness: Largest distance from 1 of the factor on a copy's pixels.
    """

    kind: ClassVar[str] = "umtra"

    source: Annotated[Source, reads_kind(WRAPPED, Source, what="source of examples"), writes_kind(WRAPPED)]
    max_shift: int = Field(default=6, ge=0)
    zero_share: float = Field(default=0.5, ge=0, lt=1)
    max_turn_degrees: float = Field(default=0.0, ge=0, le=45)
    max_scaling: float = Field(default=0.0, ge=0, lt=1)
    flip: bool = False
    max_brightness: float = Field(default=0.0, ge=0, le=1)

    @field_validator("source")
    @classmethod
    def _has_examples(cls, source: Source) -> Source:
        able = " and ".join(sorted(WRAPPED))
        if source.task != Classification():
            raise ValueError(
                f"{source.kind} yields {source.task.kind} tasks; umtra makes classes of images, as of {able}"
            )
        if type(source).draw_examples is Source.draw_examples:
            raise ValueError(f"{source.kind} has no examples to draw one by one, as {able} have")
        return source

    @model_validator(mode="after")
    def _alters_something(self) -> "UMTRA":
        amounts = ("max_shift", "zero_share", "max_turn_degrees", "max_scaling", "max_brightness")
        if not self.flip and not any(getattr(self, name) for name in amounts):
            raise ValueError(f"all augmentations are off, so queries equal the support: raise {', '.join(amounts)}")
        return self

    @property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing of the wrapped source."""
        return self.source.preprocessing

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one example of the wrapped source."""
        return self.source.feature_shape

    @property
    def drawn_together(self) -> str:
        """Protocol note of the wrapped source on which classes meet in a task."""
        return self.source.drawn_together

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the wrapped source's fingerprint, the settings and this recipe's version."""
        settings = self.model_dump(mode="json", exclude={"source"})
        parts = {"wrapped": self.source.fingerprint, "recipe": [self.kind, RECIPE_VERSION], **settings}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def stamp(self) -> tuple[int, ...]:
        """Stamp of the wrapped source."""
        return self.source.stamp

    def verify(self) -> None:
        """Verify the wrapped source."""
        self.source.verify()

    def check(self, split: Split, spec: EpisodeSpec) -> None:
        """Check that meta-train has images, at least one for each way; other splits as the wrapped source does.

        Raises:
            InputError: If there are too few images; the message has the numbers.
        """
        if split != "meta-train":
            self.source.check(split, spec)
            return
        if spec.sampling != "plain" or spec.most_queries is None:
            raise InputError(
                f"umtra makes each class of {split} of one example and altered copies of it: give numbers of shots and "
                f"queries, or ranges (got {spec})"
            )
        shape = self.feature_shape
        if not isinstance(self.preprocessing, ImagePreprocessing) or len(shape) != 3:
            raise InputError(f"umtra alters images, but {self.source.kind} has examples of shape {shape}")
        if self.max_shift >= min(shape[1:]):
            raise InputError(f"max_shift of {self.max_shift} pixels moves {shape[1]}x{shape[2]} images out of sight")
        found = self.source.num_examples(split)
        if found < spec.most_ways:
            raise InputError(
                f"{spec.most_ways} ways asked for, but {split} has {found} examples, of which each is a class"
            )

    def sample_task(self, draws: Draws, split: Split, spec: EpisodeSpec) -> Task:
        """A task of `ways` examples and augmented copies of them in meta-train; else one of the wrapped source.

        Raises:
            InputError: If `split` has too few examples.
        """
        if split != "meta-train":
            return self.source.sample_task(draws, split, spec)
        ways, shots, queries = spec.draw(draws)
        assert queries is not None, spec
        x, places = self.source.draw_examples(draws, split, ways)
        copies = self.altered(x.repeat(shots - 1 + queries, axis=0), draws)
        x = np.concatenate([x[:, None], copies.reshape(ways, -1, *x.shape[1:])], axis=1)
        support, query = np.split(x, [shots], axis=1)
        labels = np.arange(ways, dtype=np.int64)
        return Task(
            support=Side(np.ascontiguousarray(support).reshape(-1, *x.shape[2:]), labels.repeat(shots)),
            query=Side(np.ascontiguousarray(query).reshape(-1, *x.shape[2:]), labels.repeat(queries)),
            class_ids=-1 - places,
        )

    def sample_tasks(self, draws: ManyDraws, split: Split, spec: EpisodeSpec) -> list[Task]:
        """Sample tasks of meta-train one by one; those of other splits as the wrapped source does."""
        if split != "meta-train":
            return self.source.sample_tasks(draws, split, spec)
        return super().sample_tasks(draws, split, spec)

    def altered(self, images: Images, draws: Draws) -> Images:
        """Augmented copies of images [n, channels, height, width]."""
        if self.max_turn_degrees or self.max_scaling:
            images = turned(images, self.max_turn_degrees, self.max_scaling, draws)
        if self.flip:
            images = flipped(images, draws)
        if self.max_brightness:
            images = brightened(images, self.max_brightness, draws)
        if self.max_shift:
            images = shifted(images, self.max_shift, draws)
        return erased(images, self.zero_share, draws) if self.zero_share else images

    def count_tasks(self, split: Split, spec: EpisodeSpec) -> int:
        """Number of sets of examples in meta-train, augmentation aside; otherwise as the wrapped source counts."""
        if split != "meta-train":
            return self.source.count_tasks(split, spec)
        found = self.source.num_examples(split)
        return sum(comb(found, ways) for ways in range(spec.fewest_ways, spec.most_ways + 1))

    def num_classes(self, split: Split) -> int:
        """Number of examples for meta-train; otherwise the wrapped source's number of classes."""
        return self.source.num_examples(split) if split == "meta-train" else self.source.num_classes(split)

    def places(self, split: Split, class_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Index of each example for meta-train; otherwise the wrapped source's index of each class."""
        return -1 - class_ids if split == "meta-train" else self.source.places(split, class_ids)

    def class_name(self, class_id: int) -> str:
        """Name of a class; "example 17", for instance, for examples of meta-train, whose ids are negative."""
        return f"example {-1 - class_id}" if class_id < 0 else self.source.class_name(class_id)
