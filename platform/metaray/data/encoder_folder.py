"""Where the files of a pretrained encoder lie: a Hugging Face-style folder, or weights alone; here or elsewhere."""

from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from metaray.data.names import some
from metaray.data.remote import is_remote, local_path
from metaray.data.servers import shown
from metaray.data.weights import Weights, beside, held_weights
from metaray.errors import InputError
from metaray.json_text import parse_object
from metaray.uris import Uri

WEIGHTS, CONFIGURATION, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
PREPARATION = "preprocessor_config.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
SHARDED = ".safetensors.index.json"
SHOWN = 3
ADVICE = (
    "weights are read from safetensors alone, in one file, since whatever opens pickled ones runs code that may lie in "
    "them; where you trust them, safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors') "
    "writes one"
)


@dataclass(frozen=True)
class EncoderFolder:
    """The folder of a pretrained encoder, or its single file of weights.

    Attributes:
        path: Path of the folder, or of its weights, which end in ".safetensors"; or the URI of either.
    """

    path: str

    def __post_init__(self) -> None:
        if Uri.parse(self.path).place.lower().endswith(PICKLED):
            raise InputError(f"{shown(self.path)}: {ADVICE}")

    @property
    def weights_uri(self) -> str:
        """URI of the file of weights."""
        return self.path if self._is_file else self.uri(WEIGHTS)

    def uri(self, name: str) -> str:
        """URI of a file in the folder."""
        if "://" not in self.path:
            folder = PurePosixPath(self.path)
            return str((folder.parent if self._is_file else folder) / name)
        parts = Uri.parse(self.path)
        folder_text = parts.place.rpartition("/")[0] if self._is_file else parts.place.rstrip("/")
        return replace(parts, place=f"{folder_text}/{name}").text

    def weights(self, sha256: str = "") -> Weights:
        """The weights, in the cache; see `held_weights`.

        Raises:
            InputError: If `held_weights` raises it, or a local folder has weights only in other formats, which the
                message names.
        """
        if not self._is_file and not is_remote(self.path) and (folder := local_path(self.path)).is_dir():
            others = sorted(path.name for path in folder.iterdir() if path.name.endswith((*PICKLED, SHARDED)))
            if others and not (folder / WEIGHTS).exists():
                raise InputError(f"{folder}: no {WEIGHTS}, but {some(others, SHOWN)}: {ADVICE}")
        return held_weights(self.weights_uri, sha256)

    def configuration(self) -> dict[str, Any]:
        """Contents of `config.json`; empty if there is none.

        Raises:
            InputError: If the file is not a JSON object, or cannot be read.
        """
        return self._object(CONFIGURATION)

    def preparation(self) -> dict[str, Any]:
        """Contents of `preprocessor_config.json`, which describes how images are prepared; empty if there is none.

        Raises:
            InputError: If the file is not a JSON object, or cannot be read.
        """
        return self._object(PREPARATION)

    def tokenizer(self) -> str | None:
        """Contents of `tokenizer.json`; None if there is none.

        Raises:
            InputError: If the file is not UTF-8 text, or cannot be read.
        """
        found = beside(self.uri(TOKENIZER))
        try:
            return None if found is None else found.decode()
        except UnicodeDecodeError:
            raise InputError(f"{shown(self.uri(TOKENIZER))}: not a text in UTF-8") from None

    def _object(self, name: str) -> dict[str, Any]:
        found = beside(self.uri(name))
        return {} if found is None else parse_object(found, where=shown(self.uri(name)))

    @property
    def _is_file(self) -> bool:
        return Uri.parse(self.path).place.lower().endswith(".safetensors")


def read_tokenizer(path: str) -> str:
    """Contents of a tokenizer's file: `tokenizer.json`, another .json file, or the one in an encoder's folder.

    Raises:
        InputError: If there is no such file.
    """
    if path.lower().endswith(".json"):
        found, where = beside(path), path
        try:
            text = None if found is None else found.decode()
        except UnicodeDecodeError:
            raise InputError(f"{shown(path)}: not a text in UTF-8") from None
    else:
        folder = EncoderFolder(path)
        text, where = folder.tokenizer(), folder.uri(TOKENIZER)
    if text is None:
        hint = "" if is_remote(path) or local_path(path).exists() else f"; {path} does not exist"
        raise InputError(f"{shown(where)}: no such tokenizer{hint}")
    return text
