"""The experiment: the frozen, validated, complete description of a run."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from metaray.algorithms import ALGORITHMS, Algorithm
from metaray.algorithms.algorithm import MOST_INNER_STEPS
from metaray.algorithms.task_shape import TaskShape
from metaray.config import Config, check_name, difference, refuse_subclass
from metaray.data import SOURCES
from metaray.data.source import Source
from metaray.episodes.augmentation import Augmentation
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import InputError
from metaray.experiment.optimizer import OptimizerField
from metaray.imports import EVERY_FIELD, reads_kind, writes_kind
from metaray.json_text import parse_json
from metaray.models import MODELS, Model
from metaray.optimizers import Adam
from metaray.tasks import TaskKind
from metaray.uris import place_of_secret

Execution = Literal["auto", "each", "batched", "compiled", "graph"]


class Evaluation(Config):
    """How a run is evaluated. The episodes do not depend on the training seed.

    Attributes:
        episodes: Ways, shots and queries in evaluation; None takes those of training.
        inner_steps: Number of inner steps of gradient-based algorithms in evaluation; None takes that of training.
        every: Number of outer steps between evaluations on meta-val, which also happen at the end; 0 evaluates only at
            the end.
        val_episodes: Number of meta-val episodes, the first ones of their sequence.
        test_episodes: Number of meta-test episodes, the first ones of their sequence, evaluated at the end.
        seed: Seed of the sequence of evaluation episodes.
    """

    episodes: EpisodeSpec | None = None
    inner_steps: int | None = Field(default=None, ge=0, le=MOST_INNER_STEPS)
    every: int = Field(default=500, ge=0)
    val_episodes: int = Field(default=200, ge=2)
    test_episodes: int = Field(default=1000, ge=2)
    seed: int = Field(default=0, ge=0, lt=2**64)


class Checkpoint(Config):
    """When checkpoints are written.

    Attributes:
        every: Number of outer steps between checkpoints. Each evaluation on meta-val and the end of the run write one,
            too; 0 writes only those.
    """

    every: int = Field(default=0, ge=0)


class Precision(Config):
    """Floating-point arithmetic of the network.

    Attributes:
        dtype: "float32", or "bfloat16" under autocast (weights, losses and sums stay float32).
        channels_last: Whether image batches have the channels-last memory format.
    """

    dtype: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = False


class Initial(Config):
    """The state of a finished run that another run starts from, instead of fresh parameters.

    Attributes:
        run: Name of the finished run, in the same storage.
        step: Number of outer steps that it had done; counting continues from there.
        parameters_sha256: SHA-256 of the finished run's meta-parameters at that step, as in its result.
    """

    run: str
    step: int = Field(gt=0)
    parameters_sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Experiment(Config):
    """The complete description of a run: data, model, algorithm, optimiser and evaluation.

    It is frozen and validated, and converts to JSON and back without loss.

    Attributes:
        name: Name of the MLflow experiment and of the registered model.
        source: Source of the tasks.
        episodes: Ways, shots and queries of meta-training.
        model: Architecture of the network.
        algorithm: The meta-learning algorithm.
        optimizer: Optimiser of the outer loop.
        meta_batch_size: Number of episodes B of an outer step. Step s trains on episodes s*B .. s*B + B-1.
        num_steps: Number of outer steps.
        evaluation: How the run is evaluated on meta-val and meta-test.
        checkpoint: When checkpoints are written.
        reduction: How outer gradients of workers are summed. "exact" sums in one fixed tree over the chunks of the
            meta-batch, so that no bit depends on the number of workers. "fast" is a plain all-reduce, whose bits depend
            on it.
        chunk_size: Number of episodes that are computed together; None leaves it to `most_workers`. No more workers can
            take part than there are chunks in a meta-batch.
        most_workers: Largest number of workers that can take part: the meta-batch is cut into that many chunks. None
            (omitted from the JSON) takes chunks of 1 on a CPU, and one chunk, for 1 worker, on a GPU. It excludes
            `chunk_size`.
        precision: Floating-point arithmetic of the network.
        threads_per_worker: Number of threads of each worker's kernels.
        seed: Seed of the initial weights and of the training episodes.
        execution: How a chunk's meta-gradient is computed: "each" episode by itself, "batched" under torch.vmap,
            "compiled" in pieces (an inner step, a forward pass), or as a CUDA "graph" of the whole; "auto" (omitted
            from the JSON) chooses by device, model and algorithm (`metaray.training.execution.table`).
        recompute_inner_steps: Whether to keep only the parameters at the start of each inner step, and to compute the
            step again for its derivatives: less memory for more time. Omitted from the JSON if false.
        augmentation: Random augmentation of images in training, such as `augmentation.flip=true`; None (omitted from
            the JSON) for none.
        initial: State of another run that training starts from, set by `metaray train --extend`; None (omitted from the
            JSON) starts afresh.
    """

    name: str
    source: Annotated[Source, reads_kind(SOURCES, Source, what="source"), writes_kind(SOURCES)]
    episodes: EpisodeSpec
    model: Annotated[Model, reads_kind(MODELS, Model, what="model"), writes_kind(MODELS)]
    algorithm: Annotated[Algorithm, reads_kind(ALGORITHMS, Algorithm, what="algorithm"), writes_kind(ALGORITHMS)]
    optimizer: OptimizerField = Adam()
    meta_batch_size: int = Field(default=16, gt=0, le=2**20)
    num_steps: int = Field(default=1000, ge=0, lt=2**31)
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpoint = Checkpoint()
    reduction: Literal["exact", "fast"] = "exact"
    chunk_size: int | None = Field(default=None, gt=0)
    most_workers: int | None = Field(default=None, gt=0, exclude_if=lambda workers: workers is None)
    precision: Precision = Precision()
    threads_per_worker: int = Field(default=1, gt=0, le=1024)
    seed: int = Field(default=0, ge=0, lt=2**64)
    execution: Execution = Field(default="auto", exclude_if=lambda execution: execution == "auto")
    recompute_inner_steps: bool = Field(default=False, exclude_if=lambda recompute: not recompute)
    augmentation: Augmentation | None = Field(default=None, exclude_if=lambda augmentation: augmentation is None)
    initial: Initial | None = Field(default=None, exclude_if=lambda initial: initial is None)

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        return check_name(name, "experiment name")

    @model_validator(mode="after")
    def _is_no_subclass(self) -> "Experiment":
        refuse_subclass(self, Experiment)
        return self

    @model_validator(mode="after")
    def _is_cut_once(self) -> "Experiment":
        if self.chunk_size is not None and self.most_workers is not None:
            raise ValueError(
                f"most_workers={self.most_workers} and chunk_size={self.chunk_size} both cut the meta-batch: give one, "
                "and set the other to null"
            )
        return self

    @model_validator(mode="after")
    def _can_start(self) -> "Experiment":
        self.model.check_start()
        return self

    @model_validator(mode="after")
    def _does_more_than_it_starts_from(self) -> "Experiment":
        if self.initial is not None and self.num_steps <= self.initial.step:
            raise ValueError(
                f"num_steps: the run starts from step {self.initial.step} of run {self.initial.run!r}, and needs more "
                f"steps than that (got {self.num_steps})"
            )
        return self

    @model_validator(mode="after")
    def _tells_no_secret(self) -> "Experiment":
        place = place_of_secret(self.model_dump(mode="json"))
        if place is not None:
            raise ValueError(
                f"{place} holds a credential, which everybody could read who reads the record of a run: leave it out, "
                "and read it from the environment of every node"
            )
        return self

    @model_validator(mode="after")
    def _task_agrees(self) -> "Experiment":
        task = self.source.task
        for where, spec in (("episodes", self.episodes), ("evaluation.episodes", self.eval_spec)):
            try:
                task.check_ways(spec.fewest_ways, spec.most_ways)
            except ValueError as error:
                raise ValueError(f"{where}.ways: {self.source.kind} yields {task.kind} tasks, and {error}") from None
        try:
            self.algorithm.check_task(task)
        except InputError as error:
            able = ", ".join(sorted(learners_of(task)))
            raise ValueError(f"{error}, which {self.source.kind} yields; these take them: {able}") from None
        return self

    @model_validator(mode="after")
    def _ways_agree(self) -> "Experiment":
        if not self.algorithm.fixed_ways:
            return self
        train, judged = self.episodes.fixed_ways, self.eval_spec.fixed_ways
        for where, spec in (("episodes", self.episodes), ("evaluation.episodes", self.eval_spec)):
            if spec.fixed_ways is None:
                able = ", ".join(sorted(kind for kind, cls in ALGORITHMS.items() if not cls().fixed_ways))
                raise ValueError(
                    f"{where}.ways: a {self.algorithm.kind} learner is fixed to its ways, and cannot have "
                    f"{spec.ways_in_words}; these take any number of them: {able}"
                )
        if train != judged:
            raise ValueError(
                f"a {self.algorithm.kind} learner is fixed to its ways: it cannot train at {train} ways "
                f"(episodes.ways) and be judged at {judged} (evaluation.episodes.ways)"
            )
        return self

    @property
    def task_shape(self) -> TaskShape:
        """Shape of the tasks in training; this opens the source."""
        source = self.source
        classes = source.num_classes("meta-train")
        return TaskShape(source.feature_shape, self.episodes.most_ways, source.task, classes, source.preprocessing)

    @property
    def eval_spec(self) -> EpisodeSpec:
        """Ways, shots and queries of meta-val and meta-test."""
        return self.evaluation.episodes or self.episodes

    @property
    def quality(self) -> str:
        """Name of the score, one of `metaray.tasks.score.SCORES`."""
        return self.source.task.score.name

    @property
    def protocol(self) -> str:
        """The evaluation protocol in words: how scores of this experiment are to be read."""
        return protocol_of(self.eval_spec, self.algorithm, self.evaluation.inner_steps, self.source)

    def require_faithful(self) -> None:
        """Check that converting the experiment to JSON and back loses nothing.

        Workers, checkpoints and the registry know an experiment by its JSON alone.

        Raises:
            InputError: If a field comes back changed; the message names it.
        """
        where = f"experiment {self.name}"
        try:
            text = self.to_json()
        except (TypeError, ValueError) as error:
            raise InputError(f"{where} cannot be written as JSON, which workers are sent: {error}") from error
        found = difference(self, Experiment.from_json(text, where=f"{where}, read from its own JSON"))
        if found is not None:
            raise InputError(
                f"{where}: {found} does not come back as it was from JSON, which workers are sent: declare its type so "
                "that it does, and fill it with plain values (numbers, text, lists, objects)"
            )

    def every_field(self) -> dict[str, Any]:
        """All fields that can be set, in JSON types, including those that `to_json` omits."""
        written = self.model_dump(mode="json", context=EVERY_FIELD)
        settable = {
            "most_workers": None,
            "augmentation": None,
            "execution": self.execution,
            "recompute_inner_steps": False,
        }
        written = settable | written
        return {name: written[name] for name in type(self).model_fields if name in written}

    def to_json(self) -> str:
        """The experiment as canonical JSON: sorted keys, an indent of two spaces."""
        return json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, *, where: str = "experiment", trust: tuple[str, ...] | None = None) -> "Experiment":
        """Read an experiment from JSON: the inverse of `to_json`.

        Args:
            text: The JSON text.
            where: Name of the text in messages.
            trust: Packages besides metaray that import paths may lead to; None trusts all packages, which suits an
                experiment of the user's own.

        Raises:
            InputError: If the text is not JSON, or does not describe a valid experiment; the message names `where`.
        """
        context = None if trust is None else {"trust": trust}
        values = parse_json(text, where=where)
        return cls.parse(values, where=where, context=context)


def learners_of(task: TaskKind) -> Iterator[str]:
    """Names of the algorithms that can learn tasks of this kind."""
    for kind, algorithm in ALGORITHMS.items():
        with suppress(InputError):
            algorithm().check_task(task)
            yield kind


def protocol_of(spec: EpisodeSpec, algorithm: Algorithm, inner_steps: int | None, source: Source | None = None) -> str:
    """The evaluation protocol in words; `inner_steps` is given if evaluation takes another number than training."""
    inner = f", {inner_steps} inner steps" if inner_steps is not None and algorithm.gradient_steps else ""
    together = source.drawn_together if source is not None else ""
    return f"{spec}{together and f', {together}'}, {algorithm.batch_norm} batch norm{inner}"
