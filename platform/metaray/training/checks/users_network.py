"""What a network of the user's own may do wrong by itself, told with the user's own line before anything else."""

import linecache
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from metaray.episodes.inputs import Inputs, described, mapped
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.models import MODELS, Custom
from metaray.models.model import Fresh, build_fresh
from metaray.models.state import undone
from metaray.optimizers import CustomOptimizer
from metaray.tracebacks import is_users, shown, user_frames
from metaray.users_code import defined_at, lines_of, users_code

PER_BUILD = "a network is built anew for each run, worker and learner"


def holds_users_code(experiment: Experiment) -> bool:
    """Whether the model, the algorithm, the source or the optimiser is not metaray's own."""
    parts = (experiment.model, experiment.algorithm, experiment.source, experiment.optimizer)
    if isinstance(experiment.model, Custom) or isinstance(experiment.optimizer, CustomOptimizer):
        return True
    return any(type(part).__module__.partition(".")[0] != "metaray" for part in parts)


def check_network(experiment: Experiment) -> Fresh | None:
    """Build a network of the user's own twice, and send a batch through it.

    Returns:
        The second one, through which nothing was sent; None where the network is none of the user's own.

    Raises:
        InputError: If that fails, or gives something else than a network should; the message has the user's own line.
    """
    model, problem = experiment.model, experiment.task_shape
    if type(model) in MODELS.values() and not isinstance(model, Custom):
        return None
    name = model.path if isinstance(model, Custom) else f"{type(model).__module__}:{type(model).__qualname__}"
    outputs = experiment.algorithm.outputs(problem)

    def built() -> Fresh:
        with users_code(f"{name} cannot be built"):
            return build_fresh(
                model, problem.feature_shape, outputs, seed=experiment.seed, preprocessing=problem.preprocessing
            )

    network = built().network
    if not isinstance(network, nn.Module):
        raise InputError(f"{name}: build returned {type(network).__name__}, not a torch.nn.Module")
    _refuse_lazy(name, network)
    with undone(network):
        again = built()
        _refuse_other(name, network, again.network)
    x = problem.probe(2)
    found = _forward(network, x)
    if not isinstance(found, Tensor):
        raise InputError(_wrong_output(name, network, x, f"{_described(found)}, but must return one tensor"))
    if not found.is_floating_point():
        told = f"a tensor of {found.dtype}, but must return one of floating-point numbers".replace("torch.", "")
        raise InputError(_wrong_output(name, network, x, told))
    return again


def _refuse_lazy(name: str, network: nn.Module) -> None:
    for path, module in network.named_modules():
        tensors = [*module._parameters.values(), *module._buffers.values()]
        if any(tensor is not None and is_lazy(tensor) for tensor in tensors):
            raise InputError(
                f"{name}: {path or 'the network'} ({type(module).__name__}) has no size before it sees data, and "
                f"{PER_BUILD}: give it its sizes, or run a batch through the network at the end of its constructor, "
                f"self(torch.zeros(2, *feature_shape)){_defined(network)}"
            )


def _refuse_other(name: str, network: nn.Module, again: nn.Module) -> None:
    """Two builds share nothing, and with one seed they are equal."""
    before = {id(module): path for path, module in network.named_modules()}
    held = {id(tensor): key for key, tensor in [*network.named_parameters(), *network.named_buffers()]}
    for path, module in again.named_modules():
        if id(module) in before and next(iter(module.state_dict(keep_vars=True)), None) is not None:
            where = f"its part {path!r}" if path else "the network"
            raise InputError(
                f"{name}: {where} is the same module each time, but {PER_BUILD}: make it where it is called"
                f"{_defined(network)}"
            )
    for key, tensor in [*again.named_parameters(), *again.named_buffers()]:
        if id(tensor) in held:
            raise InputError(f"{name}: {key!r} is the same tensor each time, but {PER_BUILD}{_defined(network)}")
    first = dict(network.named_parameters())
    for key, parameter in again.named_parameters():
        if key not in first or not torch.equal(first[key], parameter):
            raise InputError(
                f"{name}: two builds with one seed differ in parameter {key!r}, but {PER_BUILD}, and all must begin "
                f"alike: draw random numbers from torch's generator{_defined(network)}"
            )


def _forward(network: nn.Module, x: Inputs) -> Any:
    network.train(False)
    try:
        with torch.no_grad(), undone(network):
            return network(mapped(Tensor.clone, x))
    except (Exception, SystemExit) as error:
        if isinstance(error, InputError):
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        lines = f"\n{lines_of(error)}" if user_frames(error) else ""
        raise InputError(
            f"the model cannot take a batch of shape {described(x)} from this source: {first}{lines}"
        ) from error


def _described(value: object) -> str:
    if isinstance(value, dict):
        return f"a dict of {', '.join(map(repr, value)) or 'nothing'}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return "None" if value is None else f"a {type(value).__name__}"


def _wrong_output(name: str, network: nn.Module, x: Inputs, what: str) -> str:
    with _last_return() as place, torch.no_grad(), undone(network):
        network(mapped(Tensor.clone, x))
    where = place() or defined_at(type(network))
    return f"{name}: its forward returned {what}" + (f":\n{where}" if where else "")


@contextmanager
def _last_return() -> Iterator[Callable[[], str]]:
    """Within the block, the last line of the user's own that returned from a function is noted."""
    found: list[tuple[str, int, str]] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "return" and is_users(frame.f_code.co_filename):
            found[:] = [(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)]

    def place() -> str:
        if not found:
            return ""
        file, number, function = found[0]
        return f"{shown(file)}:{number}: in {function}\n    {linecache.getline(file, number).strip()}"

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield place
    finally:
        sys.setprofile(before)


def _defined(network: nn.Module) -> str:
    place = defined_at(type(network)) if is_users(sys.modules[type(network).__module__].__file__ or "<") else ""
    return f" ({place})" if place else ""
