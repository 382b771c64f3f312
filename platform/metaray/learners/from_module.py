"""A network that was trained elsewhere as a learner: its weights checked, name by name, against what loading builds."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from metaray.algorithms.algorithm import MOST_INNER_STEPS, Algorithm, start
from metaray.algorithms.context import Context, Tensors, not_finite
from metaray.algorithms.task_shape import TaskShape, probe_of
from metaray.data.preprocessing import Preprocessing
from metaray.episodes.episode import EpisodeSpec
from metaray.episodes.inputs import mapped
from metaray.errors import InputError
from metaray.imports import resolve
from metaray.learners.encoder import weights_behind
from metaray.learners.learner_network import built, check_tensors
from metaray.models.batch_norm import EpisodicBatchNorm, normalises_batches
from metaray.models.custom import Custom
from metaray.models.model import Model, seeded, trainable
from metaray.models.state import kept, marks_of, rebuilt, restore
from metaray.tasks import Classification, TaskKind
from metaray.users_code import users_code

SEED = 0
ALIKE = 1e-4
"""Largest difference between outputs of the module and of the rebuilt network, relative to the largest output."""
RUNNING = ("running_mean", "running_var", "num_batches_tracked")


class FromModule:
    """Creates learners from networks that were trained elsewhere, and registers learners without a run."""

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        *,
        model: Model | str,
        algorithm: Algorithm,
        preprocessing: Preprocessing,
        ways: int = 1,
        shots: int,
        queries: int = 15,
        inner_steps: int | None = None,
        task: TaskKind | None = None,
        parameters: Mapping[str, Tensor] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> Self:
        """Create a learner from a network that was trained elsewhere.

        Args:
            module: The trained network. Its `state_dict` is stored, and its outputs are compared with those of the
                rebuilt network.
            model: How the network is built anew wherever the learner is loaded: a model of `metaray.models`, or the
                import path `package.module:Name` of the network's class or of a function that returns it, called with
                `feature_shape` and `outputs` (None for algorithms that take embeddings). Parameters that it freezes
                (`requires_grad=False`) are not adapted.
            algorithm: Algorithm that adapts and predicts, with the hyperparameters that the network was trained for.
            preprocessing: How raw inputs become what the network was trained on: size, mode and normalisation of
                images.
            ways: Number of ways of evaluation tasks; also of all tasks, if the network has one output for each class. 1
                if targets mean the same in all tasks.
            shots: Number of support examples of each class in evaluation.
            queries: Number of query examples of each class in evaluation.
            inner_steps: Number of inner steps at adaptation; None takes the algorithm's own number.
            task: Kind of the learner's tasks; None for classification.
            parameters: Trained parameters of the algorithm itself, by name, such as Meta-SGD's learning rates.
            provenance: Where the network comes from, in JSON types; stored with the learner.

        Returns:
            The learner.

        Raises:
            InputError: If the rebuilt network has other parameters or other outputs than the module; the message names
                what differs.
        """
        spec = EpisodeSpec.parse({"ways": ways, "shots": shots, "queries": queries}, where="ways, shots and queries")
        task = task or Classification()
        _check_task(algorithm, spec, task, inner_steps)
        kept_provenance = _plain_json(provenance or {})
        model = Custom.parse({"path": model}, where="model") if isinstance(model, str) else model
        shape = TaskShape(preprocessing.feature_shape, ways, task, preprocessing=preprocessing)
        network, initial = built(lambda: start(algorithm, model, shape, seed=SEED))
        marks = marks_of(rebuilt(network))  # before anything is sent through it
        _fill(network, module.state_dict(), model)
        meta = _meta(algorithm, network, shape, initial, dict(parameters or {}))
        _check_answers(module, network, meta, preprocessing)
        made: Any = cast(Any, cls)(
            algorithm=algorithm,
            model=model.held,
            meta=meta,
            preprocessing=preprocessing,
            spec=spec,
            inner_steps=inner_steps,
            seed=SEED,
            task=task,
            provenance=kept_provenance,
            state={name: tensor.detach().clone() for name, tensor in kept(network).items()},
            rebuilt=marks,
            encoder=weights_behind(preprocessing),
        )
        return cast(Self, made)

    def register(
        self,
        name: str,
        *,
        source: Any = None,
        promote: bool = False,
        link_encoder: str | None = None,
        tracking_uri: str | None = None,
    ) -> Any:
        """Register the learner as the next version of a model, evaluated as the learner of a run is.

        Args:
            name: Name of the registered model.
            source: What to evaluate on: a source, or an experiment, whose source and numbers of episodes are used. None
                evaluates nothing, and sets no alias.
            promote: Whether to make it @champion whatever the comparison says.
            link_encoder: Folder or URI of a storage that keeps the frozen encoder, once for all versions that share it;
                None stores it in the version.
            tracking_uri: URI of MLflow; None takes MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory.

        Returns:
            A `metaray.tracking.addition.Addition`: the version, its scores, and whether it became @champion.

        Raises:
            InputError: If the learner cannot be rebuilt from its files alone, or the source does not fit it.
        """
        # By its name, because this stage knows no MLflow, and imports nothing that does.
        add = resolve("metaray.tracking.addition:add_learner", trust=())
        return add(self, name, source=source, promote=promote, link_encoder=link_encoder, tracking=tracking_uri)


def _check_task(algorithm: Algorithm, spec: EpisodeSpec, task: TaskKind, inner_steps: int | None) -> None:
    """Refuse ways and targets that don't go together, and numbers of inner steps that no learner has."""
    if inner_steps is not None and not 0 <= inner_steps <= MOST_INNER_STEPS:
        raise InputError(f"inner_steps: 0 to {MOST_INNER_STEPS} (got {inner_steps})")
    try:
        task.check_ways(spec.fewest_ways, spec.most_ways)
    except ValueError as error:
        raise InputError(f"ways: of {task.kind} tasks {error}; other kinds are given as task=Regression()") from None
    algorithm.check_task(task)


def _plain_json(provenance: Mapping[str, Any]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(json.dumps(dict(provenance), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"provenance: give what JSON holds: text, numbers, lists, objects ({error})") from None
    return found


def _fill(network: nn.Module, found: Mapping[str, Tensor], model: Model) -> None:
    """Give a network that was built anew the weights of the module, all of them and no others."""
    wanted = {**trainable(network), **kept(network)}
    forgotten = {
        f"{name}.{buffer}" if name else buffer
        for name, layer in network.named_modules()
        if isinstance(layer, EpisodicBatchNorm)  # has no running statistics any more
        for buffer in RUNNING
    } | {name for name in found if name.endswith(RUNNING[-1])}
    forgotten |= network.state_dict().keys() - wanted.keys()  # other names of the same parameters
    have = {name: tensor.detach().cpu() for name, tensor in found.items() if name in wanted or name not in forgotten}
    what = model.path if isinstance(model, Custom) else model.kind
    try:
        check_tensors({name: tensor.detach() for name, tensor in wanted.items()}, have, "parameter or buffer")
    except InputError as error:
        problem = str(error).replace("the model wants", f"{what} builds").replace("the file has", "the module has")
        raise InputError(f"{problem}: {what} must build a network like the module, for these outputs") from None
    with torch.no_grad():
        for name, parameter in trainable(network).items():
            parameter.copy_(have[name])
    restore(network, {name: have[name].clone() for name in kept(network)})


def _meta(
    algorithm: Algorithm, network: nn.Module, shape: TaskShape, initial: Tensors, parameters: dict[str, Tensor]
) -> Tensors:
    """The meta-parameters: the network's, and those of the algorithm itself, as they are given."""
    with seeded(SEED):
        meta = algorithm.init(network, shape)
    own = initial.keys() - trainable(network).keys()
    if own != parameters.keys():
        missing, strange = sorted(own - parameters.keys()), sorted(parameters.keys() - own)
        needs = f"; it needs {_listed(initial, missing)}" if missing else ""
        knows = f"; it has no {', '.join(map(repr, strange))}" if strange else ""
        raise InputError(
            f"parameters: {algorithm.kind} learns {_listed(initial, own) or 'none'} besides the network{needs}{knows}"
        )
    meta |= {name: parameters[name].detach().cpu() for name in own}
    check_tensors(initial, meta, "parameter")
    if (bad := not_finite(meta)) is not None:
        raise InputError(f"parameter {bad} holds values that are not finite (NaN or infinite)")
    return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in meta.items()}


def _listed(tensors: Tensors, names: Iterable[str]) -> str:
    return ", ".join(f"{name!r} {list(tensors[name].shape)}" for name in sorted(names))


def _check_answers(module: nn.Module, network: nn.Module, meta: Tensors, preprocessing: Preprocessing) -> None:
    """Refuse a network that has the module's weights and computes something else, as by another activation.

    Where batch norm normalises over the batch, the module's running statistics are no part of the learner, and nothing
    can be compared.
    """
    if normalises_batches(network):
        return
    x = probe_of(preprocessing, 3)
    weights = {name: meta[name] for name in trainable(network)}
    modes = {part: part.training for part in module.modules()}
    place = next((tensor.device for tensor in module.state_dict().values()), torch.device("cpu"))
    with torch.no_grad(), users_code(f"the module {type(module).__name__} can't be asked"):
        try:
            wanted = module.eval()(mapped(lambda part: part.to(place), x)).cpu()
        finally:
            for part, mode in modes.items():
                part.training = mode
    with torch.no_grad(), users_code("the network that is built anew can't be asked"):
        found = Context(network, ways=1).forward(weights, x)
    if found.shape != wanted.shape:
        raise InputError(
            f"the module gives {list(wanted.shape)} for 3 inputs, the network built anew {list(found.shape)}"
        )
    apart = float((found - wanted).abs().max())
    if not apart <= ALIKE * max(1.0, float(wanted.abs().max())):
        raise InputError(
            "with the same weights the network that is built anew gives other answers than the module (up to "
            f"{apart:g} apart): it must compute the same, with the same options, and the module must hold nothing "
            "outside its state_dict"
        )
