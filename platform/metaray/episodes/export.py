"""An episode as folders of image files: what a user's own task looks like."""

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaray.data import ClassStore, Glyphs
from metaray.data.draws import Split
from metaray.data.names import is_clutter, one_spelling
from metaray.data.preprocessing import ImagePreprocessing
from metaray.data.source import Source
from metaray.episodes.episode import EpisodeSpec
from metaray.episodes.sampler import sample_episode
from metaray.errors import InputError

# Of a folder's name; systems take 255, and class ids may be appended.
LONGEST_BYTES = 200
# Devices of Windows, whatever follows a dot.
RESERVED = re.compile(r"con|prn|aux|nul|com[0-9]|lpt[0-9]", re.IGNORECASE)


def source_named(store: str, split: str, *, within_groups: bool = False) -> Source:
    """The embedded source "glyphs", or the store file of that path."""
    if store == "glyphs":
        return Glyphs(within_groups=within_groups)
    return ClassStore(path=store, split=split, within_groups=within_groups)


def export_episode(source: Source, spec: Mapping[str, Any], split: Split, seed: int, index: int, out: Path) -> None:
    """Write one episode as `out/support/CLASS/*.png` and `out/query/CLASS/*.png`.

    The source's preprocessing turns the images into the same pixels again.

    Raises:
        InputError: If the split cannot yield such an episode, or `out` exists already or cannot be written.
    """
    wanted = EpisodeSpec.parse(spec, where="episode")
    preprocessing = source.preprocessing
    if not isinstance(preprocessing, ImagePreprocessing):
        raise InputError(f"{source.kind} yields no images, which is what an export writes")
    source.check(split, wanted)
    episode = sample_episode(source, wanted, split, seed, index)
    support, query, ids = episode.task
    class_ids = ids.tolist()
    names = folder_names([source.class_name(class_id) for class_id in class_ids], class_ids)
    if out.exists() or out.is_symlink():
        raise InputError(f"cannot make the folder {str(out)!r}: it exists already")
    sides = {"support": support, "query": query}
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        # Beside it first: whole or not at all.
        with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=".metaray-export-") as scratch:
            task = Path(scratch) / "task"
            for side, (x, y) in sides.items():
                for position, (pixels, label) in enumerate(zip(x, y, strict=True)):
                    folder = task / side / names[label]
                    folder.mkdir(parents=True, exist_ok=True)
                    preprocessing.picture(pixels).save(folder / f"{position:03d}.png")
            task.rename(out)
    except OSError as error:
        raise InputError(f"cannot make the folder {str(out)!r}: {error}") from error


def folder_names(class_names: Sequence[str], class_ids: Sequence[int]) -> list[str]:
    """A safe folder name for each class; the names differ on every file system.

    Class ids are appended to names that differ only in characters which folders cannot have.
    """
    names = [_folder_name(name) for name in class_names]
    if len({name.casefold() for name in names}) < len(names):
        return [f"{name}_{class_id}" for name, class_id in zip(names, class_ids, strict=True)]
    return names


def _folder_name(class_name: str) -> str:
    """What folders can be called on every system, and no name that is passed over as hidden or as clutter."""
    name = re.sub(r"[^\w.-]+", "_", one_spelling(class_name))
    name = name.encode()[:LONGEST_BYTES].decode(errors="ignore")
    name = re.sub(r"^\.+|\.+$", "_", name) or "_"
    return f"{name}_" if is_clutter(name) or RESERVED.fullmatch(name.partition(".")[0]) else name
