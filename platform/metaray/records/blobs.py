"""Encoders that lie once in a storage, under `blobs/SHA256`, however many learners have them."""

import hashlib
from dataclasses import replace

from metaray.errors import InputError, redacted, shareable
from metaray.learners.alone import require_alone
from metaray.learners.encoder_link import BLOBS, EncoderLink, blob_of
from metaray.learners.learner import Learner
from metaray.records.storage import Storage


def check_linkable(frozen: bool) -> None:
    """Check that a learner has a frozen encoder that can be linked to.

    Raises:
        InputError: If it has none.
    """
    if not frozen:
        raise InputError(
            "--link-encoder: there is nothing to link: neither is the model a frozen Encoder, nor does the source hold "
            "vectors of one (`metaray data embed`); a trained encoder is part of the learner"
        )


def linked(learner: Learner, root: Storage) -> Learner:
    """The learner with its encoder replaced by a link; the encoder is written to the storage once.

    Args:
        learner: Learner with a frozen encoder.
        root: Storage of all runs.

    Raises:
        InputError: If the learner has no such encoder, or the storage cannot be written, or holds another file in its
            place.
    """
    tensors = learner.encoder_tensors
    check_linkable(bool(tensors))
    require_alone(replace(learner, link=None).files())
    digest, data = blob_of(tensors)
    name = f"{BLOBS}/{digest}"
    try:
        if not root.exists(name):
            root.write(name, data)
        elif hashlib.sha256(root.read(name)).hexdigest() != digest:  # as no whole write leaves it
            raise InputError(f"{root.shown}/{name} is damaged: its content has another SHA-256; delete it")
    except OSError as error:
        raise InputError(f"the encoder can't be written to {root.shown}/{name}: {redacted(str(error))}") from shareable(
            error
        )
    return replace(learner, link=EncoderLink(sha256=digest, at=root.child(BLOBS).child(digest).root))
