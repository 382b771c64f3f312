"""Whether a network's vocabulary is that of the tokens which it gets."""

from metaray.data.preprocessing import Preprocessing, TextPreprocessing
from metaray.errors import InputError


def check_vocabulary(preprocessing: Preprocessing, vocabulary: int, longest: int | None) -> None:
    """Check that an encoder has an embedding for every token, and positions for the longest text.

    Args:
        preprocessing: Preprocessing of the inputs.
        vocabulary: Size of the encoder's vocabulary.
        longest: Number of positions; None if any number of tokens is possible.

    Raises:
        InputError: If it has not; the message has both numbers.
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
