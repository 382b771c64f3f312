"""The interface of every model: a frozen description that builds an `nn.Module`."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from metaray.config import Config
from metaray.data.preprocessing import Preprocessing
from metaray.data.ragged import FeatureShape


class Model(Config):
    """A frozen description of a network, with the architecture's hyperparameters as fields."""

    kind: ClassVar[str]

    @abstractmethod
    def build(self, feature_shape: FeatureShape, outputs: int | None) -> nn.Module:
        """Build a freshly initialised network.

        Args:
            feature_shape: Shape of one input; its first axis is None if inputs are ragged.
            outputs: Size of the output layer; None for an embedding network without one.

        Returns:
            A module that maps inputs [n, *feature], or whatever else the preprocessing returns, to [n, outputs] or [n,
            embedding].

        Raises:
            InputError: If the architecture cannot take such inputs.
        """

    def build_for(
        self, feature_shape: FeatureShape, outputs: int | None, preprocessing: Preprocessing | None
    ) -> nn.Module:
        """Build a network as `build` does, for models that need to know the preprocessing of their inputs.

        Args:
            feature_shape: Shape of one input; its first axis is None if inputs are ragged.
            outputs: Size of the output layer; None for an embedding network without one.
            preprocessing: Preprocessing of the inputs; None if they are plain numbers.

        Raises:
            InputError: If the architecture cannot take such inputs.
        """
        return self.build(feature_shape, outputs)

    @property
    def held(self) -> Self:
        """The description as a learner stores it: the same network, built without reading any file.

        A learner holds the contents of these files and fills them in.
        """
        return self

    def check_start(self) -> None:
        """Check that the description is complete, so that training can start from it.

        Raises:
            InputError: If something is missing that only a learner can fill in; the message names it.
        """


class Network(nn.Module):
    """A body and a linear head (or none): the parameters are named `body.*` and `head.*`."""

    def __init__(self, body: nn.Module, embedding_size: int, outputs: int | None) -> None:
        super().__init__()
        self.body = body
        self.head: nn.Module = nn.Identity() if outputs is None else nn.Linear(embedding_size, outputs)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs [n, *feature] to [n, outputs], or to [n, embedding] if there is no head."""
        result: Tensor = self.head(self.body(x))
        return result


class SpatialMean(nn.Module):
    """The mean over the places of a feature map."""

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, height, width] to [n, channels]."""
        return x.mean(dim=(2, 3))


def initialize(module: nn.Module) -> None:
    """Initialise a layer with Glorot-uniform weights and zero biases (Glorot and Bengio, AISTATS 2010).

    The MAML authors' code does the same.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def trainable(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a network that are not frozen, by name."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def second_names(network: nn.Module) -> dict[str, str]:
    """The further names of tied parameters that are not frozen, and for each the first, by which they go."""
    first = {id(parameter): name for name, parameter in network.named_parameters()}
    every = network.named_parameters(remove_duplicate=False)
    found = {name: first[id(parameter)] for name, parameter in every if parameter.requires_grad}
    return {name: own for name, own in found.items() if name != own}


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block, what the CPU's generator gives depends on `seed` alone; afterwards it is as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


class Fresh(NamedTuple):
    """A freshly built network, and the state of the CPU's generator after building it.

    Attributes:
        network: Network that has not computed anything yet.
        generator: State of the generator, from which further random numbers are drawn.
    """

    network: nn.Module
    generator: Tensor


def build_fresh(
    model: Model,
    feature_shape: FeatureShape,
    outputs: int | None,
    *,
    seed: int,
    preprocessing: Preprocessing | None = None,
) -> Fresh:
    """Build on the CPU with weights that depend on `seed` alone."""
    with seeded(seed):
        network = model.build_for(feature_shape, outputs, preprocessing)
        return Fresh(network, torch.default_generator.get_state())


def build_seeded(
    model: Model,
    feature_shape: FeatureShape,
    outputs: int | None,
    *,
    seed: int,
    preprocessing: Preprocessing | None = None,
) -> nn.Module:
    """Build a network whose initial values depend on `seed` alone."""
    return build_fresh(model, feature_shape, outputs, seed=seed, preprocessing=preprocessing).network
