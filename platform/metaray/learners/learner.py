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
    """A trained few-shot learner: algorithm, model, meta-parameters and the source's preprocessing.

    A run of metaray makes one, and the registry holds it. `Learner.from_module` wraps a network that was trained
    elsewhere.

    Attributes:
        algorithm: The meta-learning algorithm that adapts to a task and predicts.
        model: Description of the network's architecture.
        meta: The trained meta-parameters, by name.
        preprocessing: Preprocessing that turns raw inputs into what the network takes.
        spec: Ways, shots and queries of the episodes that the learner was evaluated on.
        inner_steps: Number of inner steps at adaptation; None takes the algorithm's own number.
        step: Number of outer steps that trained `meta`; algorithms with schedules over outer steps depend on it.
        seed: Seed that the network was built with. It decides buffers that a model draws at random.
        task: Kind of the learner's tasks: classification, binary or regression, or one of the user's own.
        classes: Number of classes in the meta-train split.
        provenance: Record of the run, data and versions that the learner comes from, in JSON types.
        state: Frozen parameters and persistent buffers of the network, by name.
        rebuilt: Checksums of the tensors that are not stored in `state`, since building the network anew makes them
            again.
        code: SHA-256 (hex) of each package of the user's own, at the time the learner was made; see `metaray.trust`.
        encoder: Weights of the encoder whose vectors are the network's inputs, if the learner was trained on such
            vectors; see `metaray.learners.encoder`.
        link: Place of the encoder's weights, if the learner's own files do not hold them; see
            `metaray.learners.encoder_link`.
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
    """Cache of the encoder: empty until it is first needed, then a list of that one network."""
    _unused: list[nn.Module] = field(default_factory=list, init=False, repr=False, compare=False)
    """Networks of this learner that were built for inspection; a thread that pops one has it for itself."""

    def __repr__(self) -> str:
        parts = parts_line(self.algorithm, self.model, self.preprocessing)
        spec = spec_line(self.spec, self.ways is not None, self.task)
        numbers = sum(tensor.numel() for tensor in self.meta.values())
        return f"Learner({parts}, {spec}, {numbers:,} parameters, after step {self.step})"

    @property
    def task_shape(self) -> TaskShape:
        """The input shape, ways and kind of the learner's tasks."""
        prepared = self.preprocessing
        return TaskShape(prepared.feature_shape, self.spec.most_ways, self.task, self.classes, prepared)

    @property
    def ways(self) -> int | None:
        """Number of classes that every task must have.

        None if the learner takes any number of classes, or if outputs mean the same in all tasks, as in regression.
        """
        return self.spec.fixed_ways if self.task.labels_vary and self.algorithm.fixed_ways else None

    @property
    def network(self) -> nn.Module:
        """A new network of the learner's architecture, with the trained frozen parameters and buffers.

        Each call returns a network of its own, so that threads do not share one. Its other parameters are freshly
        initialised: adapted ones are passed in at each call.

        Raises:
            InputError: If the network cannot be built, or differs from the one that was trained.
        """
        with suppress(IndexError):
            return self._unused.pop()
        outputs, shape = self.algorithm.outputs(self.task_shape), self.preprocessing.feature_shape
        build = lambda: build_seeded(  # noqa: E731
            self.model, shape, outputs, seed=self.seed, preprocessing=self.preprocessing
        )
        return restored(build, self.state, self.rebuilt)

    def baseline(self, name: str) -> "Learner":
        """A baseline learner for the same inputs and tasks, which uses none of this learner's training.

        The nearest neighbour exists only if `preprocessing.compared` says what is compared of two inputs.

        Args:
            name: Key of `metaray.algorithms.per_task.BASELINES`.
        """
        # The user's network is not built for it, which need not be able to do without an output layer.
        network = Compared(preprocessing=self.preprocessing)
        return replace(self, algorithm=BASELINES[name], model=network, meta={}, state={}, rebuilt={})

    @property
    def encoder_tensors(self) -> Tensors:
        """Weights of the learner's frozen encoder, by the encoder's own names; empty if there is none.

        The encoder is either part of the network or comes before it.
        """
        in_network = has_frozen_encoder(self.model)
        return self.encoder or (body_of(self.state)[0] if in_network else {})

    @property
    def own_code(self) -> dict[str, str]:
        """SHA-256 (hex) of each package outside metaray that defines the algorithm, model or preprocessing."""
        return own_code(parts_to_json(self.algorithm, self.model, self.preprocessing, self.task), self.code)

    @property
    def heeds_batch(self) -> bool:
        """Whether the prediction for one query depends on the other queries of the same call."""
        network = self.network
        try:
            return self.algorithm.heeds_batch(network)
        finally:
            self._unused.append(network)  # nothing was sent through it

    def context(self, ways: int, *, inner_steps: int | None = None) -> Context:
        """The context of the learner's calls to its algorithm: evaluation, in float32.

        The number of inner steps is that of the learner unless `inner_steps` overrides it.
        """
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
        """Adapt to a new task from a few labelled examples, the support set.

        Args:
            x: Inputs of the support set: images of any size (paths, files, bytes of files, PIL images, or arrays and
                tensors of uint8), numbers [n, *feature] (also [n] if an input is one number), or whatever else the
                learner's preprocessing reads; in a list, array, tensor, column or iterator.
            y: Targets of the support set, one for each input. Classification: strings, numbers, or elements of arrays
                and tensors; classes are kept in the order of their first appearance. Binary: 1 for positives, 0 for
                negatives. Regression: values [n, target_size], or [n] if a target is one number.
            inner_steps: Number of inner steps; None takes the number that the learner was evaluated with.

        Returns:
            The adapted task, which predicts for new inputs.

        Raises:
            InputError: If `x` and `y` differ in length, an input cannot be read or has the wrong shape, or the learner
                is fixed to another number of classes.
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
        """Raw inputs and targets as the tensors that the network is adapted on.

        Raises:
            InputError: If `inputs` refuses the inputs, or their number differs from that of the targets.
        """
        inputs = self.inputs(x, count=len(targets.y))
        if len(targets.y) != count(inputs):
            one, other = self.preprocessing.input_word, self.task.target_word
            counted = f"{count(inputs)} support {one}{'' if count(inputs) == 1 else 's'}"
            raise InputError(f"{counted} for {len(targets.y)} {other}s; give one {other} an {one}")
        return Examples(inputs, targets.y)

    def inputs(self, x: RawInputs, *, count: int | None = None) -> Inputs:
        """Raw inputs as the network takes them: float32 [n, *feature], or a flat dict of named tensors.

        Numbers are normalised as in training.

        Args:
            x: The raw inputs, or a single one.
            count: Expected number of inputs, if known; it decides between the possible readings of an array.

        Raises:
            InputError: If an input cannot be read or has the wrong shape; the message names the input.
        """
        compact, prepared = self.compact(x, count=count), self.preprocessing
        if not isinstance(prepared, EncodedPreprocessing):
            return prepared.normalize(mapped(torch.from_numpy, compact))
        if not self._encoders:
            self._encoders.append(encoder_of(prepared, self.encoder))
        return prepared.normalize(vectors_of(self._encoders[0], prepared, compact))

    def compact(self, x: RawInputs, *, count: int | None = None) -> Compact:
        """Raw inputs as a source stores them: uint8 images, float32 numbers; ragged inputs are padded.

        Args:
            x: The raw inputs, or a single one.
            count: Expected number of inputs, if known; it decides between the possible readings of an array.

        Raises:
            InputError: If an input cannot be read or has the wrong shape; the message names the input.
        """
        prepared = self.preprocessing
        return (prepared.raw if isinstance(prepared, EncodedPreprocessing) else prepared).read(x, count=count)

    def save(self, folder: str | Path) -> None:
        """Write the learner to a folder, as JSON and safetensors files with checksums.

        Args:
            folder: Path of the folder; `metaray.load` reads it.

        Raises:
            InputError: If building the network needs files of the user's own that the folder would not hold.
        """
        files = self.files()
        require_alone(files)
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            Path(folder, name).write_bytes(data)

    def files(self) -> dict[str, bytes]:
        """The files that `save` writes: their bytes by file name, with the manifest last."""
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
    """A learner adapted to one task, which predicts for new inputs of that task.

    Attributes:
        learner: The learner that adapted.
        classes: Labels of the task, in the order of the columns of `predict_proba`; empty for regression.
        adapted: What the algorithm's `adapt` returned for the support set: adapted parameters, or class means, for
            example.
        context: Context of the adaptation: the number of ways and of inner steps, and the network.
        flat: Whether targets were given as [n] rather than [n, 1]; predicted values have the same form.
        on_doubt: Function that is called once, with a message, if predictions depend on the other queries of a call and
            these are fewer or less mixed than in the learner's evaluation. By default it warns with `BatchMatters`.
        columns: Names of the columns of the CSV file that held the support set, inputs first, then targets; empty if
            they are the learner's own column names.
        kept: What `extend` needs of the support set: the examples themselves (if the task was adapted in this process,
            or saved with them) or a summary of them.
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
        """Extend the task with further examples, of its own classes or of new ones; returns a new task.

        "together" gives the same task, up to rounding, as adapting to all examples at once. If the algorithm can
        summarise examples one by one (class means, ridge regression, neural processes, attention; without batch norm),
        only the summary and the further examples are needed; otherwise the task adapts anew to all examples, and must
        hold them.

        "continue" learns from the further examples alone. Algorithms with inner steps take these steps on them,
        starting from the task's adapted parameters; other algorithms add them to their summary. Batch norm keeps the
        statistics of the first support set.

        Args:
            x: Raw inputs of the further examples, as `Learner.adapt` takes them.
            y: Targets of the further examples. New labels must have the same type as the task's own; their classes come
                after the task's.
            how: "together" or "continue".

        Raises:
            InputError: If `Learner.adapt` would refuse the examples; if labels have another type, or are new although
                the learner is fixed to a number of ways; if the task does not hold what `how` needs, or the algorithm
                does not support `how`.
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
        """Write the task to a folder that predicts exactly, to the last bit, as this task does.

        `metaray.load_task` reads the folder. It is complete in itself, unless the learner links to its encoder instead
        of holding it.

        A task that lies at `path` already is replaced. The folder keeps the summary of the support set where `extend`
        needs no more than that; otherwise only `support=True`, which keeps the preprocessed examples, lets the loaded
        task be extended.

        Args:
            path: Folder to write.
            support: Whether to write the support set, too, as the network takes it.

        Raises:
            InputError: If `path` holds something other than a task, or cannot be written; if JSON cannot represent a
                label; if the support set is asked for but the task does not hold it.
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
        """Predict class probabilities [n, classes], with columns in the order of `classes`.

        Under transductive batch norm all inputs of one call are normalised together and influence one another;
        `on_doubt` is called if that is likely to hurt.

        Args:
            x: Raw inputs, as `Learner.adapt` takes them.

        Raises:
            InputError: If an input cannot be read or has the wrong shape, or the task predicts values, not classes.
        """
        return self.learner.task.probabilities(self._outputs(x))

    def predict_values(self, x: RawInputs) -> NDArray[np.float32]:
        """Predict values [n, target_size], or [n] if targets were given as [n].

        Args:
            x: Raw inputs, as `Learner.adapt` takes them.

        Raises:
            InputError: If an input cannot be read or has the wrong shape, or the task predicts classes, not values.
        """
        return self.learner.task.values(self._outputs(x), self.flat)

    def predict(self, x: RawInputs) -> list[Hashable] | NDArray[np.float32]:
        """Predict the most probable label of each raw input, or its values in regression.

        Returns a list of labels, or the array that `predict_values` returns.
        """
        return self.learner.task.predictions(self._outputs(x), self.classes, self.flat)

    def predict_columns(self, x: RawInputs) -> dict[str, Any]:
        """Predictions as the columns of a table, by column name: labels with probabilities, or values."""
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
