"""Whether a network's vocabulary is that of the tokens which it gets."""

from metaray.data.preprocessing import Preprocessing, TextPreprocessing
from metaray.errors import InputError


def check_vocabulary(preprocessing: Preprocessing, vocabulary: int, longest: int | None) -> None:
    """Refuse tokens that an encoder has no vectors for, and more of them than it has places for.

    Args:
        preprocessing: Preprocessing of the inputs.
        vocabulary: Tokens that the encoder knows.
        longest: Places that it has; None where there may be any number.

    Raises:
        InputError: If there are such; the message has both numbers.
    """
    if not isinstance(preprocessing, TextPreprocessing):
        raise InputError(
            f"the encoder takes tokens of texts, but the source's preprocessing is {preprocessing.kind!r}: "
            "`metaray data import text --encoder FOLDER` makes a store of them"
        )
    if preprocessing.vocabulary > vocabulary:
        raise InputError(
            f"the encoder knows {vocabulary} tokens, but the source's tokenizer makes {preprocessing.vocabulary}: "
            "import the texts again with the encoder's own tokenizer"
        )
    if longest is not None and preprocessing.longest > longest:
        raise InputError(
            f"the encoder takes {longest} tokens a text, but the source has up to {preprocessing.longest}: import the "
            f"texts again with --longest {longest}"
        )
