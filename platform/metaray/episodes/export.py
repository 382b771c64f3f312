"""An episode as folders of image files: what a user's own task looks like."""

import re
from pathlib import Path

from metaray.data import ClassStore, Glyphs
from metaray.data.draws import Split
from metaray.data.preprocessing import ImagePreprocessing
from metaray.data.source import Source
from metaray.episodes.episode import EpisodeSpec
from metaray.episodes.sampler import sample_episode
from metaray.errors import InputError


def source_named(store: str, split: str) -> Source:
    """The embedded source "glyphs", or the store file of that path."""
    return Glyphs() if store == "glyphs" else ClassStore(path=store, split=split)


def export_episode(source: Source, spec: dict[str, int], split: Split, seed: int, index: int, out: Path) -> None:
    """Write one episode as `out/support/CLASS/*.png` and `out/query/CLASS/*.png`.

    The pictures are such that the source's preprocessing turns them into the same pixels again.

    Raises:
        InputError: if the split cannot yield such an episode, or `out` exists already or cannot be written.
    """
    wanted = EpisodeSpec.parse(spec, where="episode")
    preprocessing = source.preprocessing
    if not isinstance(preprocessing, ImagePreprocessing):
        raise InputError(f"{source.kind} yields no images, which is what an export writes")
    source.check(split, ways=wanted.ways, shots=wanted.shots, queries=wanted.queries)
    episode = sample_episode(source, wanted, split, seed, index)
    names = [_folder_name(source.class_name(int(class_id))) for class_id in episode.class_ids]
    if len(set(names)) < len(names):  # names that differ only in characters that folders cannot have
        names = [f"{name}_{class_id}" for name, class_id in zip(names, episode.class_ids, strict=True)]
    try:
        out.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {str(out)!r}: {error}") from error
    sides = {"support": (episode.support_x, episode.support_y), "query": (episode.query_x, episode.query_y)}
    for side, (x, y) in sides.items():
        for position, (pixels, label) in enumerate(zip(x, y, strict=True)):
            folder = out / side / names[label]
            folder.mkdir(parents=True, exist_ok=True)
            preprocessing.picture(pixels).save(folder / f"{position:03d}.png")


def _folder_name(class_name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", class_name)
