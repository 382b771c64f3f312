"""A text encoder of one's own: the mean of the words' vectors, and a layer."""

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    """Takes what `Words.normalize` gives."""

    def __init__(
        self, *, feature_shape: tuple[None], outputs: int | None, vocabulary: int = 2048, width: int = 32
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.body = nn.Linear(width, width)
        self.head = nn.Identity() if outputs is None else nn.Linear(width, outputs)

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        vectors = self.embedding(x["words"])
        mask = x["mask"][..., None].to(vectors.dtype)
        mean = (vectors * mask).sum(1) / mask.sum(1)
        found: Tensor = self.head(torch.tanh(self.body(mean)))
        return found
