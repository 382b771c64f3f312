"""What an optimiser or a schedule of the user's own may do wrong, told by its name before anything else."""

import json
from typing import Any

import torch
from safetensors.torch import load, save

from metaray.algorithms.context import Tensors
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.json_text import parse_object
from metaray.models.model import seeded
from metaray.models.state import tensors_sha256
from metaray.optimizers import OPTIMIZERS, CustomOptimizer
from metaray.optimizers.stepping import build_optimizer, name_of, update
from metaray.records.optimizer_state import pack_optimizer, unpack_optimizer
from metaray.users_code import users_code

STEPS, SAVED_AT = 12, (0, 3)
"""Steps of the trial, and where it is saved; some optimisers do something else every fifth or tenth step."""
RATES = 1000
"""Steps of a schedule that are looked at."""


def check_optimizer(experiment: Experiment, meta: Tensors) -> None:
    """Let an optimiser of the user's own take a few steps, with a checkpoint between them, and look at its schedule.

    Args:
        experiment: Experiment that is to run.
        meta: The initial meta-parameters; not modified.

    Raises:
        InputError: Naming the optimiser, if it goes on otherwise from a checkpoint, or is no function of the gradients.
    """
    optimizer, num_steps = experiment.optimizer, experiment.num_steps
    if not isinstance(optimizer.schedule, str):
        with users_code(f"optimizer.schedule: {type(optimizer.schedule).__qualname__} raised an error"):
            for number in range(min(RATES, num_steps)):
                optimizer.lr_at(number * num_steps // min(RATES, num_steps), num_steps)
    if type(optimizer) in OPTIMIZERS.values() and not isinstance(optimizer, CustomOptimizer):
        return
    said = f"optimizer {name_of(optimizer)}"
    with users_code(f"{said} was tried out, and raised an error"):
        trials = [_Trial(experiment, meta, seed) for seed in (1, 2)]
        gone_on: list[tuple[int, _Trial]] = []
        for step in range(STEPS):
            if step in SAVED_AT:
                gone_on.append((step, _from_checkpoint(trials[1])))
            for trial in [*trials, *(trial for _, trial in gone_on)]:
                trial.take(step)
        one, other = trials
        if one.digest() != other.digest():
            raise InputError(
                f"{said} is no function of the gradients: two times the same ones gave different parameters. It draws "
                "random numbers, or keeps something outside of itself; every rank has to come to the same parameters"
            )
        for step, trial in gone_on:
            if trial.digest() != other.digest():
                raise InputError(
                    f"{said} goes on otherwise from a checkpoint of step {step}: it keeps something where checkpoints "
                    "do not see it. Keep it in self.state[parameter], or in a parameter group"
                )


class _Trial:
    """A copy of the parameters, and an optimiser over them."""

    def __init__(self, experiment: Experiment, meta: Tensors, seed: int) -> None:
        self.experiment, self.seed = experiment, seed
        self.said = f"optimizer {name_of(experiment.optimizer)}"
        self.meta = {name: tensor.detach().clone().requires_grad_() for name, tensor in meta.items()}
        self.built = build_optimizer(experiment.optimizer, self.meta)

    def take(self, step: int) -> None:
        """One step along a gradient that is a function of `step`; whatever else it draws depends on `seed`."""
        with seeded(step):
            gradient = {name: 0.01 * torch.randn_like(tensor) for name, tensor in self.meta.items()}
        with seeded(1000 * self.seed + step):
            update(
                self.experiment.optimizer,
                self.built,
                self.meta,
                {name: tensor.detach() for name, tensor in gradient.items()},
                step=step,
                num_steps=max(STEPS, self.experiment.num_steps),
            )

    def packed(self) -> tuple[Tensors, dict[str, Any] | None]:
        """The state, as a checkpoint has it.

        Raises:
            InputError: If no checkpoint can hold it.
        """
        try:
            return pack_optimizer(self.built, self.meta)
        except InputError as error:
            raise InputError(f"{self.said} has a state that no checkpoint can hold: {error}") from None

    def digest(self) -> str:
        """SHA-256 of the parameters, and of the state."""
        tensors, table = self.packed()
        parameters = {f"meta/{name}": tensor for name, tensor in self.meta.items()}
        return tensors_sha256(tensors | parameters) + json.dumps(table)


def _from_checkpoint(trial: _Trial) -> _Trial:
    """Another trial that goes on from the state of one, by way of the bytes that a checkpoint holds."""
    tensors, table = trial.packed()
    read = None if table is None else parse_object(json.dumps(table), where="optimizer.json")
    copy = _Trial(trial.experiment, trial.meta, seed=3)
    unpack_optimizer(load(save(tensors)), read, copy.built, copy.meta).put(copy.built)
    return copy
