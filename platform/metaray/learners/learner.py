"""The learner: what the registry holds and a user adapts to raw inputs."""

from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import CLASSES, Context, Tensors
from metaray.algorithms.growth import fixed_statistics
from metaray.algorithms.per_task import BASELINES
from metaray.algorithms.task_shape import TaskShape
from metaray.data.preprocessing import EncodedPreprocessing, Preprocessing, RawInputs
from metaray.data.ragged import Compact
from metaray.episodes.episode import EpisodeSpec
from metaray.episodes.inputs import Inputs, count, mapped
from metaray.episodes.tensors import Examples
from metaray.errors import InputError
from metaray.learners.alone import require_alone
from metaray.learners.encoder import encoder_of, vectors_of
from metaray.learners.encoder_link import EncoderLink, body_of
from metaray.learners.from_module import FromModule
from metaray.learners.growth import CENTRE, How, Kept, Learned, grown, learned, with_summary
from metaray.learners.joint_queries import doubt, warn_of
from metaray.learners.learner_file import learner_files, right_format
from metaray.learners.learner_network import restored
from metaray.learners.one_line import classes_line, parts_line, spec_line
from metaray.learners.own_code import own_code, parts_to_json
from metaray.learners.task_file import TaskParts, save_task
from metaray.models.comparison import Compared
from metaray.models.frozen_body import has_frozen_encoder
from metaray.models.model import Model, build_seeded
from metaray.models.state import Marks
from metaray.tasks import TaskKind
from metaray.tasks.task_kind import Targets


@dataclass(frozen=True, repr=False)
class Learner(FromModule):
    """Algorithm, model, trained meta-parameters and the source's preprocessing.

    A run of metaray makes one; of a network that was trained elsewhere, `Learner.from_module` does.

    Attributes:
        algorithm: How it adapts.
        model: The architecture.
        meta: The trained meta-parameters.
        preprocessing: What makes the network's inputs of raw ones.
        spec: Ways, shots and queries that it was judged at.
        inner_steps: Number of inner steps at adaptation, where that differs from the algorithm's own.
        step: Outer steps that made `meta`, for algorithms with schedules.
        seed: Seed that the network was built with; decides buffers that a model draws at random.
        task: The kind of its tasks.
        classes: Number of classes that meta-train had.
        provenance: Where it comes from: plain JSON.
        state: Frozen parameters and persistent buffers of the network.
        rebuilt: Marks by which the tensors that come from building the network anew are known again.
        code: SHA-256 of each package of the user's own, as it was when this was made; see `metaray.trust`.
        encoder: Weights of the encoder that makes vectors of raw inputs, where it was trained on such; see
            `metaray.learners.encoder`.
        link: Where its encoder lies, if its files are not to hold it; see `metaray.learners.encoder_link`.
    """

    algorithm: Algorithm
    model: Model
    meta: Tensors
    preprocessing: Preprocessing
    spec: EpisodeSpec
    inner_steps: int | None = None
    step: int = 0
    seed: int = 0
    task: TaskKind = CLASSES
    classes: int = 0
    provenance: dict[str, Any] = field(default_factory=dict)
    state: Tensors = field(default_factory=dict)
    rebuilt: Marks = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)
    encoder: Tensors = field(default_factory=dict)
    link: EncoderLink | None = None
    _encoders: list[nn.Module] = field(default_factory=list, init=False, repr=False, compare=False)
    """The encoder, once it was asked."""
    _unused: list[nn.Module] = field(default_factory=list, init=False, repr=False, compare=False)
    """Networks of this learner that were built for a look at them; a thread that pops one has it for itself."""

    def __repr__(self) -> str:
        parts = parts_line(self.algorithm, self.model, self.preprocessing)
        spec = spec_line(self.spec, self.ways is not None, self.task)
        numbers = sum(tensor.numel() for tensor in self.meta.values())
        return f"Learner({parts}, {spec}, {numbers:,} parameters, after step {self.step})"

    @property
    def task_shape(self) -> TaskShape:
        """The shape of its tasks."""
        prepared = self.preprocessing
        return TaskShape(prepared.feature_shape, self.spec.most_ways, self.task, self.classes, prepared)

    @property
    def ways(self) -> int | None:
        """The number of classes it is fixed to; None if it takes any, or labels mean the same in all tasks."""
        return self.spec.fixed_ways if self.task.labels_vary and self.algorithm.fixed_ways else None

    @property
    def network(self) -> nn.Module:
        """A network of the right architecture, with frozen parameters and buffers as when it was trained.

        Each call gives one of its own, which nobody else sends anything through.

        Raises:
            InputError: If it cannot be built, or becomes another one than it was.
        """
        with suppress(IndexError):
            return self._unused.pop()
        outputs, shape = self.algorithm.outputs(self.task_shape), self.preprocessing.feature_shape
        build = lambda: build_seeded(  # noqa: E731
            self.model, shape, outputs, seed=self.seed, preprocessing=self.preprocessing
        )
        return restored(build, self.state, self.rebuilt)

    def baseline(self, name: str) -> "Learner":
        """A baseline on the same inputs, one of `metaray.algorithms.per_task.BASELINES`. It knows nothing of this one.

        Only where `preprocessing.compared` says what inputs are compared by is there a nearest neighbour.
        """
        # The user's network is not built for it, which need not be able to do without an output layer.
        network = Compared(preprocessing=self.preprocessing)
        return replace(self, algorithm=BASELINES[name], model=network, meta={}, state={}, rebuilt={})

    @property
    def encoder_tensors(self) -> Tensors:
        """The weights of its frozen encoder, before its network or in it, by the encoder's own names; else none."""
        in_network = has_frozen_encoder(self.model)
        return self.encoder or (body_of(self.state)[0] if in_network else {})

    @property
    def own_code(self) -> dict[str, str]:
        """SHA-256 of each package besides metaray that its algorithm, model or preprocessing comes from."""
        return own_code(parts_to_json(self.algorithm, self.model, self.preprocessing, self.task), self.code)

    @property
    def heeds_batch(self) -> bool:
        """Whether an answer depends on the other queries of the same call."""
        network = self.network
        try:
            return self.algorithm.heeds_batch(network)
        finally:
            self._unused.append(network)  # nothing was sent through it

    def context(self, ways: int, *, inner_steps: int | None = None) -> Context:
        """The context in which it adapts, in float32."""
        steps = self.inner_steps if inner_steps is None else inner_steps
        return Context(
            network=self.network,
            ways=ways,
            step=max(0, self.step - 1),  # schedules stay where the last step had them
            inner_steps=steps,
            task=self.task,
        )

    def adapt(
        self, x: RawInputs, y: Iterable[Any] | NDArray[Any] | Tensor, *, inner_steps: int | None = None
    ) -> "AdaptedTask":
        """Learn a new task from a handful of examples.

        Args:
            x: Images of any size (paths, files, bytes of files, PIL images, or arrays and tensors of uint8), or numbers
                [n, *feature], for learners of one feature also [n], or what else its preprocessing reads; in lists,
                arrays, tensors, columns or iterators.
            y: Their labels: strings, numbers or elements of arrays and tensors; classes keep the order of their first
                appearance. Of a binary task 1 for positives and 0 for negatives; where targets are values [n,
                target_size], or [n] where a target is one number.
            inner_steps: Overrides what it was judged with.

        Raises:
            InputError: If lengths differ, an input cannot be read or has the wrong shape, or the number of classes is
                not the learner's.
        """
        targets = self.task.read(y)
        support = self.examples(x, targets)
        if self.ways not in (None, len(targets.classes)):
            raise InputError(
                f"the support set has {len(targets.classes)} classes, but this learner is {self.ways}-way "
                f"(a {self.algorithm.kind} learner has one output a class)"
            )
        context = self.context(len(targets.classes) or 1, inner_steps=inner_steps)
        with torch.no_grad():
            adapted, kept = learned(self.algorithm, self.meta, support, context)
        return AdaptedTask(self, targets.classes, adapted, context, flat=targets.flat, kept=kept)

    def examples(self, x: RawInputs, targets: Targets) -> Examples:
        """Raw inputs as its network takes them, with their targets.

        Raises:
            InputError: If `inputs` refuses them, or there are not as many targets.
        """
        inputs = self.inputs(x, count=len(targets.y))
        if len(targets.y) != count(inputs):
            one, other = self.preprocessing.input_word, self.task.target_word
            counted = f"{count(inputs)} support {one}{'' if count(inputs) == 1 else 's'}"
            raise InputError(f"{counted} for {len(targets.y)} {other}s; give one {other} an {one}")
        return Examples(inputs, targets.y)

    def inputs(self, x: RawInputs, *, count: int | None = None) -> Inputs:
        """Raw inputs as its network takes them: normalised float32 [n, *feature], or a flat dict of named tensors.

        Args:
            x: The inputs, or one of them.
            count: How many there must be, where that is known; decides between readings of an array.

        Raises:
            InputError: Naming the input that cannot be read or has the wrong shape.
        """
        compact, prepared = self.compact(x, count=count), self.preprocessing
        if not isinstance(prepared, EncodedPreprocessing):
            return prepared.normalize(mapped(torch.from_numpy, compact))
        if not self._encoders:
            self._encoders.append(encoder_of(prepared, self.encoder))
        return prepared.normalize(vectors_of(self._encoders[0], prepared, compact))

    def compact(self, x: RawInputs, *, count: int | None = None) -> Compact:
        """Raw inputs as a source would hold them: images as uint8, numbers as float32, ragged ones padded.

        Args:
            x: The inputs, or one of them.
            count: How many there must be, where that is known; decides between readings of an array.

        Raises:
            InputError: Naming the input that cannot be read or has the wrong shape.
        """
        prepared = self.preprocessing
        return (prepared.raw if isinstance(prepared, EncodedPreprocessing) else prepared).read(x, count=count)

    def save(self, folder: str | Path) -> None:
        """Write it as JSON and safetensors, with checksums.

        Raises:
            InputError: If building its network needs files of one's own that are none of these.
        """
        files = self.files()
        require_alone(files)
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            Path(folder, name).write_bytes(data)

    def files(self) -> dict[str, bytes]:
        """What `save` writes, by file name; the manifest is last."""
        state = self.state if self.link is None or self.encoder else body_of(self.state)[1]
        encoder = self.encoder if self.link is None else {}
        stateful = bool(state or self.rebuilt)
        description: dict[str, Any] = {
            "format": right_format(stateful=stateful, encoded=bool(encoder), linked=self.link is not None),
            **parts_to_json(self.algorithm, self.model, self.preprocessing, self.task),
            "spec": self.spec.model_dump(mode="json"),
            "inner_steps": self.inner_steps,
            "step": self.step,
            "seed": self.seed,
            "classes": self.classes,
            "provenance": self.provenance,
        }
        if stateful:
            description["rebuilt"] = self.rebuilt
        if self.own_code:
            description["code"] = self.own_code
        if self.link is not None:
            description["linked"] = self.link.model_dump(mode="json")
        return learner_files(description, self.meta, state if stateful else None, encoder)


@dataclass(frozen=True, repr=False)
class AdaptedTask:
    """A learner adapted to one task.

    Attributes:
        learner: Learner that adapted.
        classes: Labels, in the order of the columns of `predict_proba`; none where it predicts values.
        adapted: What the support set taught.
        context: Ways and inner steps.
        flat: Targets were given as [n], so predictions are too.
        on_doubt: Told, once, if answers depend on the other queries of a call and these are fewer or less mixed than
            the learner was judged on. By default it warns with `BatchMatters`.
        columns: Names of the columns of its CSV files, inputs first, then targets; empty where they have the learner's
            own names.
        kept: What is kept of the support set, for `extend`: its examples, where it was adapted in this process or saved
            with them, or a summary of them.
    """

    learner: Learner
    classes: tuple[Hashable, ...]
    adapted: Tensors
    context: Context
    flat: bool = False
    on_doubt: Callable[[str], None] = warn_of
    columns: tuple[str, ...] = ()
    kept: Kept = field(default=Kept(), repr=False, compare=False)
    _doubts: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    def __repr__(self) -> str:
        classes = f"{classes_line(self.classes)}; " if self.classes else ""
        return f"AdaptedTask({classes}of {self.learner})"

    def extend(self, x: RawInputs, y: Iterable[Any] | NDArray[Any] | Tensor, *, how: How = "together") -> "AdaptedTask":
        """The task with further examples, of the classes it has or of new ones; this one stays as it is.

        "together" gives what adapting to all examples at once gives, up to rounding. Where the algorithm has a summary
        of examples that do not influence one another in the network (class means, ridge regression, neural processes,
        attention, and no batch norm), that is made of the summary and the further examples alone; else the task adapts
        anew to all its examples, if it holds them.

        "continue" looks at the further examples alone: algorithms with inner steps take these on them, from what the
        task has learned; others add them to their summary, and batch norm keeps the statistics of the first support.

        Args:
            x: Raw inputs, as `Learner.adapt` takes them.
            y: Their targets; new labels, which are of the same type as the task's own, come after these.
            how: "together" or "continue".

        Raises:
            InputError: If `Learner.adapt` would refuse them; if labels are of another type, or new where the learner is
                fixed to the ways it has; if the task does not hold what that takes, or its algorithm cannot go on.
        """
        learner = self.learner
        targets = learner.task.read_more(y, self.classes)
        new = targets.classes[len(self.classes) :]
        if new and learner.ways is not None:
            raise InputError(
                f"this task can't take the new class {new[0]!r}: its learner is {learner.ways}-way (a "
                f"{learner.algorithm.kind} learner has one output a class); extend it with examples of "
                f"{', '.join(map(repr, self.classes))}"
            )
        further = learner.examples(x, targets)
        context = learner.context(len(targets.classes) or 1, inner_steps=self.context.inner_steps)
        with torch.no_grad():
            before = Learned(self.adapted, self.kept)
            adapted, kept = grown(learner.algorithm, learner.meta, before, further, context, how)
        return replace(self, classes=targets.classes, adapted=adapted, context=context, kept=kept)

    def save(self, path: str | Path, *, support: bool = False) -> None:
        """Write a folder that predicts as this does, to the last bit, and alone; `metaray.load_task` reads it.

        Only of a learner whose encoder is linked does it need that, too.

        A task that lies there already is replaced. It can be extended where a summary of its examples is enough for
        that, which is kept; where the examples themselves are needed, `support` keeps them, as the network takes them.

        Args:
            path: Folder to write.
            support: Also write the examples.

        Raises:
            InputError: If something else lies there, it can't be written, a label is of a type that JSON can't keep, or
                the examples are asked for that it does not hold.
        """
        learner, task = self.learner, Learned(self.adapted, self.kept)
        with torch.no_grad():
            kept = with_summary(learner.algorithm, learner.meta, task, self.context)
        if support and kept.support is None and (kept.summary is None or fixed_statistics(self.adapted)):
            raise InputError("this task was saved without its examples, so it can't be saved with them")
        tensors = kept.tensors(support=support)
        parts = TaskParts(self.classes, self.adapted, self.context.inner_steps, self.flat, self.columns, tensors)
        save_task(Path(path), self.learner.files(), parts)

    def predict_proba(self, x: RawInputs) -> NDArray[np.float32]:
        """Class probabilities [n, classes] of raw inputs.

        Under transductive batch norm the inputs of one call are normalised together, so they influence one another, and
        `on_doubt` is told where that is likely to hurt.

        Raises:
            InputError: If an input cannot be read or has the wrong shape, or this predicts values.
        """
        return self.learner.task.probabilities(self._outputs(x))

    def predict_values(self, x: RawInputs) -> NDArray[np.float32]:
        """The values [n, target_size] of raw inputs, or [n] where targets were given so.

        Raises:
            InputError: If an input cannot be read or has the wrong shape, or this tells classes apart.
        """
        return self.learner.task.values(self._outputs(x), self.flat)

    def predict(self, x: RawInputs) -> list[Hashable] | NDArray[np.float32]:
        """The most probable label of each raw input, or what `predict_values` gives."""
        return self.learner.task.predictions(self._outputs(x), self.classes, self.flat)

    def predict_columns(self, x: RawInputs) -> dict[str, Any]:
        """What `predict` and `predict_proba` say, as columns of a table by name."""
        return self.learner.task.prediction_cells(self._outputs(x), self.classes)

    def _outputs(self, x: RawInputs) -> Tensor:
        learner, adapted = self.learner, dict(self.adapted)
        centre = adapted.pop(CENTRE, None)
        with torch.no_grad():
            output = learner.algorithm.predict(learner.meta, adapted, learner.inputs(x), self.context).float()
        if centre is not None:
            output = output + centre
        if not self._doubts and learner.algorithm.heeds_batch(self.context.network):
            found = learner.task.found_classes(output)
            text = doubt(learner.spec, self.context.ways, found, len(output))
            if text is not None:
                self._doubts.append(text)
                self.on_doubt(text)
        return output
