"""Texts as weighted counts of their tokens: TF-IDF."""

import json

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from metaray.data.draws import Draws, Split
from metaray.data.preprocessing import TextPreprocessing
from metaray.data.ragged import LENGTHS, VALUES
from metaray.data.source import Source
from metaray.episodes.inputs import Inputs
from metaray.models.comparison import Comparing

SPLIT: Split = "meta-train"
AT_ONCE = 4096
"""Texts whose tokens are sorted together."""


class TermWeights(Comparing):
    """Term frequency times inverse document frequency (tf-idf) of a text's tokens, scaled to length 1.

    Document frequencies are smoothed as in scikit-learn: if d_t of n texts contain token t,

        idf_t = ln((1 + n) / (1 + d_t)) + 1

    Texts are the tokens of an encoder's tokenizer, words or pieces of words. Frequencies are counted over the texts of
    meta-train alone; a token that occurs in none of them has the largest weight, that of d_t = 0. Tokens that are put
    around every text have weight 0.

    Args:
        weights: Inverse document frequencies idf [vocabulary].
    """

    weights: Tensor

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights)

    def forward(self, x: Inputs) -> Tensor:
        """`tokens` and `mask` [n, L] to [n, vocabulary]."""
        assert isinstance(x, dict)
        tokens = x["tokens"]
        counts = torch.zeros(len(tokens), len(self.weights), device=tokens.device)
        counts.scatter_add_(1, tokens, x["mask"].float())
        return normalize(counts * self.weights, dim=1)


def fitted(source: Source, texts: TextPreprocessing) -> TermWeights:
    """Term weights with the document frequencies of a source's meta-train split.

    Raises:
        InputError: If the source has no examples that could be drawn one by one.
    """
    count = source.num_examples(SPLIT)
    frequencies = np.zeros(texts.vocabulary, dtype=np.int64)
    if count:
        compact, _ = source.draw_examples(Draws(0, SPLIT, 0), SPLIT, count)
        frequencies += document_frequencies(compact[VALUES], compact[LENGTHS], texts.vocabulary)
    weights = np.log((1 + count) / (1 + frequencies)) + 1
    weights[around(texts)] = 0
    return TermWeights(torch.from_numpy(weights.astype(np.float32)))


def document_frequencies(values: NDArray[np.int32], lengths: NDArray[np.int64], vocabulary: int) -> NDArray[np.int64]:
    """Number of texts that contain each token, [vocabulary].

    Args:
        values: Padded token ids [n, L].
        lengths: Lengths of the texts [n].
        vocabulary: Size of the vocabulary: one more than the highest token id.
    """
    found = np.zeros(vocabulary, dtype=np.int64)
    for start in range(0, len(values), AT_ONCE):
        some = values[start : start + AT_ONCE]
        there = np.arange(some.shape[1]) < lengths[start : start + AT_ONCE, None]
        tokens = np.sort(np.where(there, some, -1), axis=1)
        first = tokens >= 0
        first[:, 1:] &= tokens[:, 1:] != tokens[:, :-1]
        found += np.bincount(tokens[first], minlength=vocabulary)
    return found


def around(texts: TextPreprocessing) -> list[int]:
    """Tokens that a tokenizer adds around texts, such as [CLS]; the one for unknown words is not among them."""
    tree = json.loads(texts.tokenizer)
    post = tree.get("post_processor") or {}
    steps = post.get("processors", [post])
    found = {token["id"] for token in tree.get("added_tokens") or [] if token.get("special")}
    for step in steps:
        for one in (step.get("special_tokens") or {}).values():
            found |= set(one.get("ids", ()))
        found |= {step[name][1] for name in ("cls", "sep") if name in step}
    model = tree.get("model") or {}
    vocabulary = model.get("vocab")
    # Pieces with probabilities tell it by its number, others by its name.
    found.discard(vocabulary.get(model.get("unk_token")) if isinstance(vocabulary, dict) else model.get("unk_id"))
    return sorted(found)
