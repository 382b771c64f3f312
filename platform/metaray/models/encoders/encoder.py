"""A pretrained encoder, frozen unless told otherwise, and a linear head behind it."""

import re
from collections.abc import Mapping
from hashlib import sha256 as sha256_of
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from metaray.config import replace
from metaray.data.access import without_access
from metaray.data.encoder_folder import EncoderFolder
from metaray.data.preprocessing import MASK, Preprocessing, TextPreprocessing
from metaray.data.ragged import FeatureShape
from metaray.data.remote import is_remote
from metaray.data.servers import shown
from metaray.data.weights import shapes_in
from metaray.episodes.inputs import Inputs
from metaray.errors import InputError
from metaray.imports import reads_kind, writes_kind
from metaray.models.conversion import convert
from metaray.models.encoders.architecture import Architecture, Pooling
from metaray.models.encoders.bert import Bert
from metaray.models.encoders.fitting import fitting, unwrapped
from metaray.models.encoders.like_lengths import in_groups
from metaray.models.encoders.own_module import OwnModule
from metaray.models.encoders.resnet import ResNet
from metaray.models.encoders.static_words import StaticWords
from metaray.models.encoders.vit import ViT
from metaray.models.model import Model, initialize, seeded

ARCHITECTURES: dict[str, type[Architecture]] = {
    "bert": Bert,
    "static_words": StaticWords,
    "resnet": ResNet,
    "vit": ViT,
    "module": OwnModule,
}
"""All architectures, by kind."""
UNREAD = StaticWords(vocabulary=1, width=1)
"""Placeholder for what is read from `path`; it stays only if `path` cannot be read, which is then the error."""


class Encoder(Model):
    """A network with pretrained weights, from a Hugging Face-style folder or one safetensors file.

    Give `path`: the other fields, which identify the weights, are read there once and are part of the description from
    then on, so that an experiment's JSON is complete, whatever becomes of the folder. Parameters are named `body.*`,
    and `head.*` in the linear layer behind it. A frozen body is not trained, adapted or written to checkpoints; a
    learner holds it beside the trained parameters and needs no folder.

    Attributes:
        path: A folder with `model.safetensors`, `config.json` (where the weights alone don't say what they are),
            `tokenizer.json` or `preprocessor_config.json`, a file of safetensors, or the URI of either (file://, s3://,
            http(s)://). Empty in a learner, which holds the weights.
        sha256: SHA-256 (hex) of the file of weights; if empty, everything is read from `path`.
        architecture: Architecture of the weights, read from the folder; give it only for a module of the user's own.
        tokenizer_sha256: SHA-256 (hex) of the tokenizer's file; empty if there is none beside the weights.
        pooling: How the vectors of an input's places (tokens, patches) become one vector: their "mean", the first one
            ("cls"), or, for a residual network, the output of the file's last layer on their mean ("fc"). By default
            what is usual for the architecture.
        normalized: Whether to scale the pooled vector to length 1.
        frozen: Whether to keep the pretrained weights unchanged.
        by_length: Whether to send texts of similar length through the encoder together, each group padded no further
            than it needs. The vectors are the same but for rounding, and take a fraction of the time on a CPU if the
            lengths differ much. Without effect where tasks are mapped over or compiled, as on a GPU.
    """

    kind: ClassVar[str] = "encoder"
    left_out_of_json: ClassVar[tuple[str, ...]] = ("by_length",)

    path: str = ""
    sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    architecture: Annotated[
        Architecture, reads_kind(ARCHITECTURES, Architecture, what="architecture"), writes_kind(ARCHITECTURES)
    ] = Field(default_factory=lambda: UNREAD)
    tokenizer_sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    pooling: Pooling = "mean"
    normalized: bool = True
    frozen: bool = True
    by_length: bool = False

    @model_validator(mode="before")
    @classmethod
    def _reads_what_is_not_said(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        path, sha256 = values.get("path", ""), values.get("sha256", "")
        if isinstance(sha256, str):  # before any file is compared with it
            if not re.fullmatch("([0-9a-fA-F]{64})?", sha256):
                raise ValueError(f"sha256: give all 64 hexadecimal digits of it, or none (got {sha256!r})")
            sha256 = sha256.lower()
            values = {**values, "sha256": sha256} if sha256 else values
        if not isinstance(path, str) or (sha256 and "architecture" in values):
            return values
        if not path:
            raise ValueError("path: give the folder or the file of the pretrained weights, or its URI")
        path = without_access(path) if is_remote(path) else path
        return _read(EncoderFolder(path), {**values, "path": path, "sha256": str(sha256)})

    @model_validator(mode="after")
    def _has_such_a_pooling(self) -> Self:
        if self.pooling not in (known := self.architecture.poolings):
            raise ValueError(
                f"pooling of a {self.architecture.kind} encoder: {', '.join(known)} (got {self.pooling!r})"
            )
        return self

    @model_validator(mode="after")
    def _has_lengths(self) -> Self:
        if self.by_length and not isinstance(self.architecture, Bert | StaticWords | OwnModule):
            raise ValueError(f"by_length: what a {self.architecture.kind} encoder takes is all of one length")
        if self.by_length and isinstance(self.architecture, OwnModule) and not self.frozen:
            raise ValueError("by_length: a module of one's own may normalise over its batch unless it is frozen")
        return self

    @property
    def size(self) -> int:
        """Size of the vector that the encoder makes of one input."""
        return self.architecture.size_of(self.pooling)

    @property
    def held(self) -> Self:
        """See `Model.held`."""
        return replace(self, path="")

    def check_start(self) -> None:
        """See `Model.check_start`."""
        if not self.path:
            raise InputError(
                "encoder: it has no path to read its weights from: only a learner, which holds them, leaves that empty"
            )

    def build(self, feature_shape: FeatureShape, outputs: int | None) -> nn.Module:
        """See `Model.build`.

        Raises:
            InputError: Always: plain numbers are none of its inputs.
        """
        raise InputError("encoder: it takes the inputs that its weights are for, such as texts, not plain numbers")

    def build_for(
        self, feature_shape: FeatureShape, outputs: int | None, preprocessing: Preprocessing | None
    ) -> nn.Module:
        """See `Model.build_for`."""
        if preprocessing is None:
            return self.build(feature_shape, outputs)
        self.check_inputs(preprocessing)
        return EncoderNetwork(self.body(preprocessing), self.size, outputs, by_length=self.by_length)

    def check_inputs(self, preprocessing: Preprocessing) -> None:
        """Check that the weights were trained for inputs of this kind.

        Raises:
            InputError: If they were not; the message names both sides.
        """
        self.architecture.check(preprocessing)
        if isinstance(preprocessing, TextPreprocessing) and self.tokenizer_sha256 not in (
            "",
            preprocessing.tokenizer_sha256,
        ):
            raise InputError(
                f"the encoder's tokenizer has the SHA-256 {self.tokenizer_sha256}, that of the source's texts "
                f"{preprocessing.tokenizer_sha256}: the same words have other numbers; import the texts again with the "
                "encoder's tokenizer"
            )

    def body(self, preprocessing: Preprocessing | None = None) -> nn.Module:
        """Build the encoder alone, with its weights.

        The weights are memory-mapped; they are zeros if a learner will fill them in.

        Args:
            preprocessing: Preprocessing of the inputs; None if inputs are already as the encoder takes them.

        Raises:
            InputError: If the weights do not fit the architecture; the message names what differs.
        """
        plain = self.architecture.is_plain
        with torch.device("meta") if plain else seeded(0):  # what a user's code draws is for nothing
            body = self.architecture.build(self.pooling, self.normalized, preprocessing)
        body.requires_grad_(not self.frozen)
        if not plain:
            convert(body)
        wanted = body.state_dict()
        if self.path:
            tensors = fitting(self.path, self.sha256, self.architecture, wanted)
        else:
            tensors = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in wanted.items()}
        body.load_state_dict(tensors, assign=True)
        return body


class EncoderNetwork(nn.Module):
    """An encoder and a linear head (or none): the parameters are named `body.*` and `head.*`."""

    def __init__(self, body: nn.Module, size: int, outputs: int | None, *, by_length: bool = False) -> None:
        super().__init__()
        self.body, self.by_length = body, by_length
        self.head: nn.Module = nn.Identity() if outputs is None else nn.Linear(size, outputs)
        initialize(self.head)

    def forward(self, x: Inputs) -> Tensor:
        """Map inputs of the body to [n, outputs], or to [n, size] if there is no head."""
        features = in_groups(self.body, x) if self.by_length and isinstance(x, dict) and MASK in x else self.body(x)
        found: Tensor = self.head(features)
        return found


def _read(folder: EncoderFolder, values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an encoder, with what the files say: digests, and what the weights are for."""
    weights, tokenizer = folder.weights(values["sha256"]), folder.tokenizer()
    digest = "" if tokenizer is None else sha256_of(tokenizer.encode()).hexdigest()
    read = {**values, "sha256": weights.sha256, "tokenizer_sha256": digest}
    if "architecture" in values:
        return read
    configuration, preparation, shapes = folder.configuration(), folder.preparation(), shapes_in(weights.path)
    *_, bare = unwrapped([*shapes])
    shapes = dict(zip(bare, shapes.values(), strict=True))
    found = (cls.read(configuration, shapes, preparation) for cls in ARCHITECTURES.values())
    architecture = next((one for one in found if one is not None), None)
    if architecture is None:
        kind = configuration.get("model_type")
        told = "no model_type" if kind is None else f"model_type {kind!r}"
        said = f"config.json says {told}" if configuration else "there is no config.json"
        raise InputError(
            f"{shown(folder.path)}: {said}, and the weights hold {len(shapes)} tensors; known are text encoders of the "
            "BERT family (bert, roberta, xlm-roberta, camembert), a single matrix of static word embeddings, residual "
            "networks with the names of torchvision's (as timm has them), and vision transformers (vit); anything else "
            "is a module of one's own: architecture=OwnModule(path='package.module:Name', width=...)"
        )
    usual = architecture.poolings[0]
    if "pooling" not in read and isinstance(architecture, Bert):
        usual = folder.pooling() or usual
    return {"pooling": usual, **read, "architecture": architecture}
