"""Where the files of a pretrained encoder lie: a Hugging Face-style folder, or weights alone; here or elsewhere."""

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from metaray.data.names import some
from metaray.data.remote import is_remote, local_path
from metaray.data.servers import shown
from metaray.data.weights import MAGIC_BYTES, Weights, another_kind, beside, held_weights, reading
from metaray.errors import InputError
from metaray.json_text import parse_json, parse_object
from metaray.uris import Uri

WEIGHTS, CONFIGURATION, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
PREPARATION = "preprocessor_config.json"
POOLING, PARTS = "1_Pooling/config.json", "modules.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
SHARDED = ".safetensors.index.json"
PACKED = (".zip", ".gz", ".tar", ".tgz", ".xz", ".bz2", ".zst", ".7z")
SHOWN = 3
ADVICE = (
    "weights are read from safetensors alone, in one file, since whatever opens pickled ones runs code that may lie in "
    "them; where you trust them, safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors') "
    "writes one"
)
MODE = "pooling_mode_"
MODES: dict[str, Literal["cls", "mean"]] = {"cls_token": "cls", "mean_tokens": "mean"}
KNOWN_PARTS = ("Transformer", "Pooling", "Normalize")
OTHERS = (
    (SHARDED, "weights are read from one file: put the tensors of all parts into one, by safetensors.torch.save_file"),
    (PICKLED, ADVICE),
    (PACKED, "unpack it"),
    (".safetensors", "where this is the encoder, give the path of the file itself"),
    ((".h5", ".msgpack", ".onnx", ".gguf"), "weights are read from safetensors alone"),
)
"""How the names of files end that lie where there are no weights, and what is to be done then."""
OTHER_TOKENIZERS = ("vocab.txt", "vocab.json", "merges.txt", ".model")


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
        if not self._is_file and not is_remote(self.path):
            folder = local_path(self.path)
            with reading(folder):
                names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
            if WEIGHTS not in names:
                _check_others(folder, names, sha256)
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

    def pooling(self) -> Literal["cls", "mean"] | None:
        """How the vectors of tokens become one, as a folder of sentence-transformers says it; None where none does.

        Raises:
            InputError: If that is a way that can't be computed, or a layer follows it.
        """
        said = self._object(POOLING)
        modes = sorted(
            name.removeprefix(MODE) for name, value in said.items() if name.startswith(MODE) and value is True
        )
        if not modes:
            return None
        found, remedy = beside(self.uri(PARTS)), "; pooling='mean' or pooling='cls' does without it"
        parts = [] if found is None else parse_json(found, where=shown(self.uri(PARTS)))
        kinds = [str(part.get("type")).rpartition(".")[2] for part in parts if isinstance(part, dict)]
        if others := [kind for kind in kinds if kind not in KNOWN_PARTS]:
            raise InputError(f"{shown(self.uri(PARTS))}: {', '.join(others)} can't be computed{remedy}")
        if len(modes) > 1 or modes[0] not in MODES:
            raise InputError(f"{shown(self.uri(POOLING))}: {' and '.join(modes)} can't be computed{remedy}")
        return MODES[modes[0]]

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
        raise InputError(
            f"{shown(where)}: no such tokenizer{'' if is_remote(path) else _in_its_place(local_path(path))}"
        )
    if other := another_kind(text[:MAGIC_BYTES].encode()):
        raise InputError(f"{shown(where)}: no tokenizer: {other}")
    return text


def _in_its_place(folder: Path) -> str:
    """What there is in the place of a tokenizer."""
    if not folder.exists():
        return f"; {folder} does not exist"
    if not folder.is_dir():
        return ""
    others = sorted(path.name for path in folder.iterdir() if path.name.endswith(OTHER_TOKENIZERS))
    told = "transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes it"
    return f", but {some(others, SHOWN)}: {told}" if others else ""


def _check_others(folder: Path, names: list[str], sha256: str) -> None:
    """Say what there is in the place of weights, which the node's cache may have all the same."""
    if folder.is_file():
        packed = folder.name.lower().endswith(PACKED)
        told = "unpack it, and give the folder" if packed else "weights are read from safetensors alone"
        raise InputError(f"{folder}: a file that does not end in .safetensors: {told}")
    for ends, told in OTHERS:
        if found := [name for name in names if name.lower().endswith(ends)]:
            raise InputError(f"{folder}: no {WEIGHTS}, but {some(found, SHOWN)}: {told}")
    if not sha256 and not folder.exists():
        raise InputError(
            f"{folder / WEIGHTS}: no such file of weights; there is no folder {str(folder)!r}, and a name on a hub "
            "is no path: download the files first"
        )
