"""Which classes are for meta-training, meta-validation and meta-testing: given with the data, listed, or drawn."""

import random
from collections.abc import Iterable, Mapping, Sequence
from math import isclose
from pathlib import Path
from typing import NamedTuple

from metaray.data.draws import SPLITS, Split
from metaray.data.names import one_spelling, some
from metaray.data.store_file import check_disjoint
from metaray.errors import InputError, unknown

SPLIT_FILES: dict[Split, str] = {"meta-train": "train.txt", "meta-val": "val.txt", "meta-test": "test.txt"}

Fractions = tuple[float, float, float]
USUAL: Fractions = (0.64, 0.16, 0.2)
ANEW = "--splits 0.64,0.16,0.2 puts the examples of each class together and deals the classes anew"


class Nouns(NamedTuple):
    """Singular and plural of the word for what is assigned to splits."""

    one: str
    many: str


CLASSES, GROUPS = Nouns("class", "classes"), Nouns("group", "groups")

# Names that mean a split wherever two of them stand side by side ...
PLAIN: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "trainset", "train-set", "meta-train", "metatrain"), "meta-train"),
    **dict.fromkeys(("val", "valid", "validation", "valset", "val-set", "meta-val", "metaval"), "meta-val"),
    **dict.fromkeys(("test", "testing", "testset", "test-set", "meta-test", "metatest"), "meta-test"),
}
# ... and names that a class may well have, which mean one only where nothing else stands beside them.
ALSO: dict[str, Split] = {
    **dict.fromkeys(("base", "background", "images-background"), "meta-train"),
    "dev": "meta-val",
    **dict.fromkeys(("novel", "evaluation", "images-evaluation"), "meta-test"),
}


def split_named(name: str) -> Split | None:
    """The split with a usual name such as "train", "Validation", "meta_test" or "novel"; None for other names."""
    key = _key(name)
    return PLAIN.get(key) or ALSO.get(key)


def is_plain_split(name: str) -> bool:
    """Whether the name means a split even if other names stand beside it."""
    return _key(name) in PLAIN


def _key(name: str) -> str:
    return name.strip().casefold().replace("_", "-").replace(" ", "-")


def given_splits(
    given: Mapping[Split, Sequence[str]], seed: int, *, where: str, by: str
) -> tuple[dict[Split, list[str]], str]:
    """The splits that the data come with; a missing one is drawn from meta-train.

    Args:
        given: Classes of each split, for at least two splits.
        seed: Seed of the draw.
        where: Name of the data for messages.
        by: What the splits come from, for instance "the folders train, test".

    Returns:
        The classes of every split, and a description of where the splits come from.

    Raises:
        InputError: If a class is in more than one split, meta-train is missing, or there are too few classes.
    """
    owners: dict[str, list[Split]] = {}
    for split, names in given.items():
        for name in names:
            owners.setdefault(name, []).append(split)
    if shared := sorted(name for name, splits in owners.items() if len(splits) > 1):
        raise InputError(
            f"{where}: {by} hold the same classes ({len(shared)} of {len(owners)}: {some(shared)}), but few-shot "
            f"learning is judged on classes that training never saw; {ANEW}"
        )
    whole = {split: sorted(given.get(split, ())) for split in SPLITS}
    missing = [split for split in SPLITS if not whole[split]]
    if not missing:
        return whole, by
    if "meta-train" in missing:
        raise InputError(f"{where}: {by} leave no class to meta-train on; {ANEW}")
    (split,) = missing
    train, share = whole["meta-train"], USUAL[SPLITS.index(split)]
    count = round(len(train) * share / (share + USUAL[0]))
    if not count:
        raise InputError(
            f"{where}: {by} give no class for {split}, and meta-train has too few to share ({len(train)}); {ANEW}"
        )
    drawn = random.Random(seed).sample(train, count)
    whole |= {split: sorted(drawn), "meta-train": [name for name in train if name not in set(drawn)]}
    return whole, f"{by}; none is for {split}, so {count} of the {len(train)} of meta-train were drawn, seed {seed}"


def chosen_splits(
    names: Sequence[str], splits: Path | Fractions, seed: int, of: Nouns = CLASSES
) -> tuple[dict[Split, list[str]], str]:
    """The splits that a user asks for, instead of those that the data come with.

    Args:
        names: Names of all classes.
        splits: A folder for `read_splits`, or fractions for `random_splits`.
        seed: Seed of random splits.
        of: Nouns for the classes, in messages.

    Returns:
        The classes of every split, and a description of where the splits come from.

    Raises:
        InputError: If `read_splits` or `random_splits` raises it.
    """
    if isinstance(splits, Path):
        return read_splits(splits, names, of), f"the files in {splits.name}"
    by = f"fractions {' '.join(f'{fraction:g}' for fraction in splits)}, seed {seed}"
    return random_splits(names, splits, seed, of), by


def random_splits(names: Sequence[str], fractions: Fractions, seed: int, of: Nouns = CLASSES) -> dict[Split, list[str]]:
    """Assign the classes to the meta-splits at random.

    Raises:
        InputError: If the fractions do not sum to 1, or a split with a fraction above 0 gets no class.
    """
    if len(fractions) != len(SPLITS) or min(fractions) < 0 or not isclose(sum(fractions), 1, abs_tol=1e-6):
        raise InputError(f"split fractions {fractions} must be three numbers, at least 0, that sum to 1")
    shuffled = sorted(names)
    random.Random(seed).shuffle(shuffled)
    bounds = [round(sum(fractions[:i]) * len(names)) for i in range(len(SPLITS) + 1)]
    splits = {split: shuffled[bounds[i] : bounds[i + 1]] for i, split in enumerate(SPLITS)}
    for split, fraction in zip(SPLITS, fractions, strict=True):
        if fraction > 0 and not splits[split]:
            listed = some(sorted(names))
            raise InputError(
                f"a fraction of {fraction:g} of {len(names)} {of.many} leaves {split} without a {of.one}: {listed}"
            )
    return splits


def read_splits(folder: Path, names: Sequence[str], of: Nouns = CLASSES) -> dict[Split, list[str]]:
    """Read splits from train.txt, val.txt and test.txt, or files named similarly, such as labels.valid.txt.

    Raises:
        InputError: If a file is missing or ambiguous, or a class is unknown, in no file, or in several.
    """
    ids = {name: i for i, name in enumerate(names)}
    splits: dict[Split, list[str]] = {}
    for split in SPLIT_FILES:
        file = _split_file(folder, split)
        splits[split] = list(_lines(file))
        for line in splits[split]:
            if line not in ids:
                raise InputError(f"{file}: {unknown(of.one, line, names)}")
    scheme = {split: [ids[name] for name in members] for split, members in splits.items()}
    check_disjoint(scheme, names, where=str(folder), many=of.many)
    listed = {name for members in splits.values() for name in members}
    if missing := [name for name in names if name not in listed]:
        raise InputError(f"{folder}: none of {', '.join(SPLIT_FILES.values())} names the {of.one} {missing[0]!r}")
    return splits


def _split_file(folder: Path, split: Split) -> Path:
    usual = folder / SPLIT_FILES[split]
    if usual.exists() or not folder.is_dir():
        return usual
    found = [one for one in sorted(folder.glob("*.txt")) if split in map(split_named, one.stem.split("."))]
    if len(found) > 1:
        raise InputError(f"{folder}: {found[0].name} and {found[1].name} may both be the classes of {split}")
    return found[0] if found else usual


def _lines(path: Path) -> Iterable[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: can't read the split: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file in UTF-8") from None
    return [one_spelling(line.strip()) for line in text.splitlines() if line.strip()]
