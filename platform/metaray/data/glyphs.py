"""The embedded data set: letters of six scripts, rendered from the fonts that matplotlib ships.

A class is a letter and each face that has it gives one example. Latin and Greek are for meta-training, Cyrillic for
validation; Georgian, Armenian and Lao are tested on.
"""

import hashlib
import json
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import features

from metaray.data.class_store import ClassStore
from metaray.data.draws import SPLITS, Draws, Split
from metaray.data.episode_spec import EpisodeSpec
from metaray.data.groups import folder_of
from metaray.data.many_draws import ManyDraws
from metaray.data.preprocessing import ImagePreprocessing, Preprocessing
from metaray.data.rendering import INK_SIZE, RENDER_SIZE, SIDE, Bitmap, render_all, script_of
from metaray.data.replacing import check_replaceable
from metaray.data.source import Source
from metaray.data.store_file import FORMAT_VERSION, write_store
from metaray.data.task import Task
from metaray.data.verified import open_store
from metaray.errors import InputError

SCRIPTS: dict[str, Split] = {
    "LATIN": "meta-train",
    "GREEK": "meta-train",
    "CYRILLIC": "meta-val",
    "GEORGIAN": "meta-test",
    "ARMENIAN": "meta-test",
    "LAO": "meta-test",
}
PREPROCESSING = ImagePreprocessing(height=SIDE, width=SIDE, mode="L", invert=True)
# A letter is left out if it differs by less than this share of its own squared ink from one of an earlier meta-split.
LOOKALIKE = 0.02
MIN_EXAMPLES = 2
# Raise it whenever the same fonts would give other examples.
RECIPE_VERSION = 1
BLOCK_ROWS = 256


class Glyphs(Source):
    """Letters of several scripts, drawn from fonts: a class store that needs no file.

    Each machine renders its own copy of the images.

    Attributes:
        rotations: Whether each class turned by 90, 180 and 270 degrees counts as three more classes of the same
            meta-split.
        within_groups: Whether all classes of a task are of one script, as in `ClassStore`.
    """

    kind: ClassVar[str] = "glyphs"
    left_out_of_json: ClassVar[tuple[str, ...]] = ("within_groups",)

    rotations: bool = False
    within_groups: bool = False

    @property
    def store(self) -> ClassStore:
        """The class store with the rendered images, built when first needed."""
        return ClassStore(path=_cached_store(), rotations=self.rotations, within_groups=self.within_groups)

    @property
    def preprocessing(self) -> Preprocessing:
        """Preprocessing of grey images of 28x28 pixels, in which ink has high numbers."""
        return self.store.preprocessing

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of one example: (1, 28, 28)."""
        return self.store.feature_shape

    @property
    def drawn_together(self) -> str:
        """The protocol note "classes of one group" if `within_groups`, otherwise an empty text."""
        return "classes of one group" if self.within_groups else ""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the store; it differs if another version of FreeType renders other pixels."""
        return self.store.fingerprint

    @property
    def stamp(self) -> tuple[int, ...]:
        """Stamp of the store."""
        return self.store.stamp

    def verify(self) -> None:
        """Verify the store."""
        self.store.verify()

    def check(self, split: Split, spec: EpisodeSpec) -> None:
        """See `ClassStore.check`."""
        self.store.check(split, spec)

    def sample_task(self, draws: Draws, split: Split, spec: EpisodeSpec) -> Task:
        """See `ClassStore.sample_task`."""
        return self.store.sample_task(draws, split, spec)

    def sample_tasks(self, draws: ManyDraws, split: Split, spec: EpisodeSpec) -> list[Task]:
        """See `ClassStore.sample_tasks`."""
        return self.store.sample_tasks(draws, split, spec)

    def count_tasks(self, split: Split, spec: EpisodeSpec) -> int:
        """See `ClassStore.count_tasks`."""
        return self.store.count_tasks(split, spec)

    def num_classes(self, split: Split) -> int:
        """See `ClassStore.num_classes`."""
        return self.store.num_classes(split)

    def places(self, split: Split, class_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `ClassStore.places`."""
        return self.store.places(split, class_ids)

    def num_examples(self, split: Split) -> int:
        """See `ClassStore.num_examples`."""
        return self.store.num_examples(split)

    def draw_examples(self, draws: Draws, split: Split, count: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """See `ClassStore.draw_examples`."""
        return self.store.draw_examples(draws, split, count)

    def class_name(self, class_id: int) -> str:
        """The script and the letter's Unicode name, as in "Greek/small letter alpha"."""
        return self.store.class_name(class_id)


def glyph_store(cache: Path | None = None) -> Path:
    """Path of the glyphs' store file, which is built in seconds if the cache has none of these versions.

    Args:
        cache: Folder of the cache; None takes `metaray` in $XDG_CACHE_HOME, or in ~/.cache.

    Raises:
        InputError: If the cache cannot be written.
    """
    folder = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metaray"
    path = folder / f"glyphs-{_key()}.arrow"
    if not _is_whole(path):
        # Two processes may both build: each replaces the file whole, with the same content.
        build_glyphs(path)
    return path


def _is_whole(path: Path) -> bool:
    try:
        open_store(path)
    except InputError:
        return False  # not there, or damaged: built, and built again, from the same fonts
    return True


def build_glyphs(path: Path) -> None:
    """Render all letters and write them as a store with the split scheme "default".

    Raises:
        InputError: If `path` cannot be written.
    """
    check_replaceable(path)
    letters = select_letters(merge_identical(render_all(SCRIPTS)))
    ids: dict[Split, list[int]] = {split: [] for split in SPLITS}
    for class_id, letter in enumerate(letters):
        ids[letter.split].append(class_id)
    write_store(
        path,
        examples=np.concatenate([letter.bitmaps for letter in letters])[:, None],
        counts=[len(letter.bitmaps) for letter in letters],
        class_names=[letter.name for letter in letters],
        schemes={"default": ids},
        preprocessing=PREPROCESSING,
        origin={
            "importer": "glyphs",
            "source": f"the fonts of matplotlib {version('matplotlib')}: DejaVu, STIX, Computer Modern",
            "licence": "the fonts' own: Bitstream Vera, SIL OFL 1.1, and public domain (BaKoMa)",
        },
        groups=[folder_of(letter.name) for letter in letters],
    )


class Letter(NamedTuple):
    """One class: the characters that look alike, the split of the first of them, and bitmaps [n, 28, 28]."""

    characters: str
    split: Split
    bitmaps: Bitmap

    @property
    def name(self) -> str:
        """Script and Unicode name of the first character."""
        script, rest = unicodedata.name(self.characters[0]).split(" ", 1)
        return f"{script.capitalize()}/{rest.lower()}"


def merge_identical(renderings: Mapping[str, Sequence[Bitmap]]) -> list[Letter]:
    """Merge characters that share a bitmap, directly or through others, in any face, into one class.

    So A, Alpha and the Cyrillic A are one class, in the first of their meta-splits, and no bitmap is in two classes. A
    bitmap that several faces share counts once.
    """
    parent = {character: character for character in renderings}

    def root(character: str) -> str:
        while parent[character] != character:
            character = parent[character]
        return character

    owner: dict[bytes, str] = {}
    for character, bitmaps in renderings.items():
        for bitmap in bitmaps:
            first = owner.setdefault(bitmap.tobytes(), character)
            parent[root(character)] = root(first)
    groups: dict[str, list[str]] = {}
    for character in sorted(renderings):
        groups.setdefault(root(character), []).append(character)
    return [_letter(characters, renderings) for characters in groups.values()]


def select_letters(letters: Iterable[Letter]) -> list[Letter]:
    """Leave out letters with a single bitmap, and those that nearly repeat a letter of an earlier meta-split."""
    kept: list[Letter] = []
    ordered = sorted((x for x in letters if len(x.bitmaps) >= MIN_EXAMPLES), key=lambda x: SPLITS.index(x.split))
    for split in SPLITS:
        candidates = [letter for letter in ordered if letter.split == split]
        if kept and candidates:
            twins = _repeat_any(candidates, kept)
            candidates = [letter for letter, twin in zip(candidates, twins, strict=True) if not twin]
        kept += candidates
    return kept


def _letter(characters: Sequence[str], renderings: Mapping[str, Sequence[Bitmap]]) -> Letter:
    # In the order of the splits, so that the class is named after a character of its own split.
    ordered = sorted(characters, key=lambda c: (SPLITS.index(_split(c)), c))
    unique = {bitmap.tobytes(): bitmap for character in ordered for bitmap in renderings[character]}
    return Letter("".join(ordered), _split(ordered[0]), np.stack(list(unique.values())))


def _repeat_any(letters: Sequence[Letter], earlier: Sequence[Letter]) -> list[bool]:
    """Whether the bitmap of each letter nearly repeats one of the `earlier` ones."""
    bitmaps, others = (_flat([letter.bitmaps for letter in group]) for group in (letters, earlier))
    energies = np.einsum("ij,ij->i", others, others)
    near = np.empty(len(bitmaps), dtype=bool)
    for start in range(0, len(bitmaps), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        ink = np.einsum("ij,ij->i", bitmaps[rows], bitmaps[rows])
        near[rows] = (energies - 2 * bitmaps[rows] @ others.T).min(axis=1) + ink < LOOKALIKE * ink
    starts = np.cumsum([0, *(len(letter.bitmaps) for letter in letters[:-1])])
    return [bool(twin) for twin in np.logical_or.reduceat(near, starts)]


def _flat(bitmaps: Sequence[Bitmap]) -> NDArray[np.float32]:
    joined = np.concatenate(bitmaps)
    return joined.reshape(len(joined), -1).astype(np.float32) / np.float32(255)


def _split(character: str) -> Split:
    return SCRIPTS[script_of(character)]


@lru_cache(maxsize=1)
def _cached_store() -> str:
    return str(glyph_store())


def _key() -> str:
    """Names everything that decides the bitmaps."""
    parts: dict[str, Any] = {
        "versions": [
            version("matplotlib"),
            version("pillow"),
            features.version("freetype2"),
            unicodedata.unidata_version,
        ],
        "recipe": [RECIPE_VERSION, FORMAT_VERSION, INK_SIZE, RENDER_SIZE, LOOKALIKE, MIN_EXAMPLES, SCRIPTS],
        "holds": "scripts as groups",
    }
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
