"""A preprocessing of one's own: a text as its words, each by a number that a hash gives it."""

import re
import zlib
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from metaray import Preprocessing
from metaray.data.preprocessing import Compact, mask_of


class Words(Preprocessing):
    """Texts of any number of words.

    Attributes:
        vocabulary: numbers that there are for words.
        longest: words of a text that are looked at.
    """

    kind: ClassVar[str] = "words"
    dtype: ClassVar[str] = "int32"
    input_word: ClassVar[str] = "text"
    compared: ClassVar[str | None] = "word counts"

    vocabulary: int = Field(default=2048, gt=0)
    longest: int = Field(default=64, gt=0)

    @property
    def feature_shape(self) -> tuple[None]:
        return (None,)

    def read(self, x: Any, *, count: int | None = None) -> Compact:
        return self.packed([self._numbers(text, where) for text, where in self.texts(x)])

    def normalize(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"words": x["values"].long(), "mask": mask_of(x)}

    def probe(self, count: int, seed: int = 0) -> Compact:
        generator = np.random.default_rng(seed)
        rows = [generator.integers(0, self.vocabulary, length) for length in self.probe_lengths(count)]
        rows[0][0] = self.vocabulary - 1
        return self.packed(rows)

    def comparable(self, x: dict[str, Tensor]) -> Tensor:
        counts = torch.zeros(len(x["words"]), self.vocabulary, device=x["words"].device)
        return counts.scatter_add(1, x["words"], x["mask"].float())

    def _numbers(self, text: str, where: str) -> Any:
        words = re.findall(r"\w+", text.lower())[: self.longest]
        return np.array([zlib.crc32(word.encode()) % self.vocabulary for word in words])
