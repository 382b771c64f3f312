"""Texts, as tokens by the tokenizer of a pretrained encoder, which is kept whole."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from metaray.data.preprocessing.preprocessing import MASK, Preprocessing, RawInputs, mask_of
from metaray.data.ragged import LONGEST, VALUES, Compact
from metaray.errors import InputError
from metaray.json_text import parse_object

if TYPE_CHECKING:
    from torch import Tensor

USUAL_LONGEST, SHOWN = 128, 80


class TextCut(UserWarning):
    """Some texts have more tokens than are looked at."""


def told_of_nothing(text: str) -> str:
    """What is said of a text in which a tokenizer finds nothing."""
    return f"the tokenizer finds nothing in {text[:SHOWN]!r}"


class Encoded(NamedTuple):
    """Tokenised texts.

    Attributes:
        rows: Token ids of each text, [tokens] int32.
        cut: Indices of the texts that were cut because they had more tokens.
        nothing: Indices of the texts that have no tokens but those that are put around each text.
        strange: Indices of the texts in which the tokenizer knows no token.
    """

    rows: list[NDArray[np.int32]]
    cut: list[int]
    nothing: list[int]
    strange: list[int]


class TextPreprocessing(Preprocessing):
    """Preprocessing of texts, tokenised by the `tokenizers` library.

    A learner keeps the tokenizer's file, and so takes raw texts.

    If a text has more than `longest` tokens, the first ones are used. Tokens that the tokenizer puts around each text,
    such as [CLS] and [SEP], count among the `longest` and are kept.

    Attributes:
        tokenizer: Contents of the file `tokenizer.json`.
        longest: Largest number of tokens that are used of a text.
        special: Whether to add the tokens that the tokenizer puts around each text; matrices of word embeddings have
            none for them.
    """

    kind: ClassVar[str] = "text"
    dtype: ClassVar[str] = "int32"
    input_word: ClassVar[str] = "text"
    compared: ClassVar[str | None] = "token counts"

    tokenizer: str = Field(min_length=1, repr=False)
    longest: int = Field(default=USUAL_LONGEST, ge=3, le=LONGEST)
    special: bool = True

    @model_validator(mode="after")
    def _is_a_tokenizer(self) -> TextPreprocessing:
        _ = self.vocabulary
        return self

    @property
    def feature_shape(self) -> tuple[None]:
        """Shape of one example: (None,), since any number of tokens is possible."""
        return (None,)

    @property
    def vocabulary(self) -> int:
        """Size of the vocabulary: one more than the highest token id."""
        return _vocabulary(self.tokenizer)

    @property
    def tokenizer_sha256(self) -> str:
        """SHA-256 of the tokenizer's file."""
        return hashlib.sha256(self.tokenizer.encode()).hexdigest()

    def read(self, x: RawInputs, *, count: int | None = None) -> Compact:
        """Tokenise texts and pad them. Warns with `TextCut` if a text is longer than `longest`.

        Raises:
            InputError: If an input is not a text, or the tokenizer finds nothing in it; the message names it.
        """
        given = self.texts(x)
        found = self.encoded([text for text, _ in given])
        for place in found.nothing:
            raise InputError(f"{given[place][1]}: {told_of_nothing(given[place][0])}")
        if found.cut:
            warnings.warn(self.told_of_cut(len(found.cut), len(found.rows)), TextCut, stacklevel=2)
        return self.packed(found.rows)

    def encoded(self, texts: Sequence[str]) -> Encoded:
        """The tokens of each text, and which were cut.

        Raises:
            InputError: If the tokenizers library is missing, or can't read the tokenizer, or the tokenizer can't read a
                text, for instance because it has no token for unknown words.
        """
        tokenizer = _opened(self.tokenizer, self.longest)
        found = [self._encoding(tokenizer, text) for text in texts]
        own = [[i for i, put in zip(one.ids, one.special_tokens_mask, strict=True) if not put] for one in found]
        strange = _strange(self.tokenizer)
        return Encoded(
            [np.array(one.ids, dtype=np.int32) for one in found],
            [place for place, one in enumerate(found) if one.overflowing],
            [place for place, ids in enumerate(own) if not ids],
            [place for place, ids in enumerate(own) if ids and set(ids) == {strange}],
        )

    def _encoding(self, tokenizer: Any, text: str) -> Any:
        try:
            return tokenizer.encode(text, add_special_tokens=self.special)
        except Exception as error:  # noqa: BLE001 - it raises nothing more special
            raise InputError(f"the tokenizer can't read {text[:SHOWN]!r}: {error}") from None

    def told_of_cut(self, cut: int, count: int) -> str:
        """A sentence on how many of `count` texts were cut, for messages."""
        texts = "1 text has" if cut == 1 else f"{cut} texts have"
        return f"{texts} more than {self.longest} tokens (of {count}); of these the first {self.longest} count"

    def normalize(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """Token ids `tokens` [..., L] int64, and `mask` [..., L], True where there is a token."""
        return {"tokens": x[VALUES].long(), MASK: mask_of(x)}

    def probe(self, count: int, seed: int = 0) -> Compact:
        """Random tokens, the highest token id among them."""
        generator = np.random.default_rng(seed)
        rows = [generator.integers(0, self.vocabulary, length) for length in self.probe_lengths(count)]
        rows[0][0] = self.vocabulary - 1
        return self.packed(rows)

    def comparable(self, x: dict[str, Tensor]) -> Tensor:
        """[n, vocabulary] how often each token is in a text, all texts of length 1."""
        import torch

        tokens = x["tokens"]
        counts = torch.zeros(len(tokens), self.vocabulary, device=tokens.device)
        counts.scatter_add_(1, tokens, x[MASK].float())
        return torch.nn.functional.normalize(counts, dim=1)


@lru_cache(maxsize=4)
def _vocabulary(text: str) -> int:
    tree = parse_object(text.encode(), where="tokenizer")
    model, added = tree.get("model"), tree.get("added_tokens") or []
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        numbers = list(vocabulary.values())
    elif isinstance(vocabulary, list):  # pieces with their probabilities, numbered by their places
        numbers = list(range(len(vocabulary)))
    else:
        raise ValueError("tokenizer: not the content of a tokenizer.json: it has no model with a vocabulary")
    numbers += [one.get("id") for one in added if isinstance(one, dict)]
    if not numbers or any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError("tokenizer: its vocabulary does not give each token a number")
    return int(max(numbers)) + 1


@lru_cache(maxsize=4)
def _strange(text: str) -> int | None:
    """The token that stands for what a tokenizer does not know; None where it has none."""
    model = parse_object(text.encode(), where="tokenizer")["model"]
    vocabulary, name = model["vocab"], model.get("unk_token")
    found = vocabulary.get(name) if isinstance(vocabulary, dict) and isinstance(name, str) else model.get("unk_id")
    return found if type(found) is int else None


@lru_cache(maxsize=4)
def _opened(text: str, longest: int) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise InputError(
            "texts need the package tokenizers, which is not installed: pip install 'metaray[text]'"
        ) from None
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # noqa: BLE001 - it raises nothing more special
        raise InputError(f"the tokenizer can't be read: {error}") from None
    if getattr(tokenizer.model, "dropout", None):  # which would draw other tokens each time
        tokenizer.model.dropout = None
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=longest)
    return tokenizer
