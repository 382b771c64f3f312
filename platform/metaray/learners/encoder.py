"""The encoder that a learner holds where it was trained on vectors: it makes such of raw inputs.

Whether a learner was trained on inputs or on vectors that a frozen encoder made of them, it takes the same raw inputs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metaray.algorithms.context import Tensors
from metaray.data.preprocessing import EncodedPreprocessing, Preprocessing
from metaray.data.ragged import Compact
from metaray.episodes.inputs import Inputs, count, mapped, take
from metaray.errors import InputError
from metaray.learners.learner_network import check_tensors
from metaray.models.encoders.encoder import Encoder

AT_ONCE = 64


def weights_behind(preprocessing: Preprocessing) -> Tensors:
    """Weights of the encoder that made the vectors of a source; empty if no encoder did.

    Raises:
        InputError: If the weights are no longer where the store of vectors says, or have changed.
    """
    if not isinstance(preprocessing, EncodedPreprocessing):
        return {}
    try:
        body = _encoder(preprocessing).body(preprocessing.raw)
    except InputError as error:
        raise InputError(
            f"the source holds vectors, and a learner of them needs the encoder that made these: {error}"
        ) from None
    return dict(body.state_dict())


def check_weights(preprocessing: Preprocessing, weights: Tensors, *, trust: Sequence[str]) -> None:
    """Check that weights are those of the encoder that a learner's preprocessing names.

    Raises:
        InputError: If they are not; the message names what differs.
    """
    if not isinstance(preprocessing, EncodedPreprocessing):
        if weights:
            raise InputError("it holds an encoder, but its inputs are not such that one makes")
        return
    # Without a path: nothing is read that somebody else's file says.
    encoder = Encoder.parse({**preprocessing.encoder, "path": ""}, where="encoder", context={"trust": tuple(trust)})
    encoder.check_inputs(preprocessing.raw)
    if encoder.size != preprocessing.size:
        raise InputError(f"its encoder makes {encoder.size} numbers, its network takes {preprocessing.size}")
    check_tensors(dict(encoder.held.body(preprocessing.raw).state_dict()), weights, "encoder's tensor")


def encoder_of(preprocessing: EncodedPreprocessing, weights: Tensors) -> nn.Module:
    """The encoder with the given weights, which are not copied."""
    body = _encoder(preprocessing).held.body(preprocessing.raw)
    body.load_state_dict(weights, assign=True)
    return body.requires_grad_(False).eval()


def vectors_of(encoder: nn.Module, preprocessing: EncodedPreprocessing, compact: Compact) -> Tensor:
    """Raw inputs, compact, as vectors [n, size]."""
    x: Inputs = preprocessing.raw.normalize(mapped(torch.from_numpy, compact))
    places = range(0, count(x), AT_ONCE)
    with torch.no_grad():
        found: list[Tensor] = [encoder(take(x, slice(start, start + AT_ONCE))) for start in places]
    return torch.cat(found)


def _encoder(preprocessing: EncodedPreprocessing) -> Encoder:
    return Encoder.parse(preprocessing.encoder, where="encoder")
