"""`metaray data`: import and describe class stores."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from metaray.cli.help import Command, Group
from metaray.cli.options import AsJson, Verify
from metaray.displays.table import print_table
from metaray.errors import InputError

if TYPE_CHECKING:
    from metaray.data.importing import ImportReport

app = typer.Typer(cls=Group, help="Import, describe and export class stores.")
imports = typer.Typer(cls=Group, help="Build a store file from raw data.")
app.add_typer(imports, name="import")

Out = Annotated[Path, typer.Option(metavar="FILE", help="The store file to write.")]
Store = Annotated[str, typer.Argument(metavar="STORE", help="A store file, or 'glyphs' for the embedded one.")]
Ways = Annotated[int, typer.Option(min=2, metavar="N", help="Number of classes in an episode.")]
Shots = Annotated[int, typer.Option(min=1, metavar="N", help="Number of support examples of each class.")]
Queries = Annotated[int, typer.Option(min=1, metavar="N", help="Number of query examples of each class.")]


@imports.command(cls=Command)
def omniglot(
    source: Annotated[
        list[Path],
        typer.Argument(metavar="PATH", help="The two official zips, the folder that holds them, or extracted folders."),
    ],
    out: Out = Path("omniglot.arrow"),
) -> None:
    """Import Omniglot at 28x28, with the splits vinyals, maml and lake."""
    from metaray.data.omniglot import import_omniglot

    with _progress() as (progress, _):
        report = import_omniglot(source, out, progress=progress)
    _imported(report)


@imports.command(cls=Command)
def images(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="A folder with a folder of images for each class; or a zip or tar archive of it."
        ),
    ],
    out: Out,
    size: Annotated[
        str, typer.Option(metavar="SIZE", help="Size of the stored images in pixels: SIDE or HEIGHTxWIDTH.")
    ] = "84",
    mode: Annotated[
        Literal["RGB", "L"],
        typer.Option(metavar="RGB|L", help="Whether to store the images in colour (RGB) or in grey (L)."),
    ] = "RGB",
    invert: Annotated[bool, typer.Option(help="Store dark ink on light paper as high numbers.")] = False,
    value_range: Annotated[
        str | None,
        typer.Option(
            "--range",
            metavar="LOW,HIGH",
            help="The numbers of black and of white, for images of more than 8 bits or of floats.",
        ),
    ] = None,
    splits: Annotated[
        str | None,
        typer.Option(
            metavar="FRACTIONS",
            help="Three fractions of the classes, such as 0.64,0.16,0.2; or a folder with train.txt, val.txt and "
            "test.txt, with the name of a class on each line. Without it, folders named train, val and test (or a CSV "
            "file) give the splits; where there are none, these fractions do.",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Seed by which classes are dealt to the splits at random.")
    ] = 0,
    depth: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="How many folders deep the class folders lie; 2 takes superclass/class/image."
        ),
    ] = 1,
    nested: Annotated[
        Literal["refuse", "join", "skip"],
        typer.Option(
            metavar="refuse|join|skip",
            help="What to do with files in folders inside a class folder: refuse them, count them to the class (join), "
            "or leave them out (skip).",
        ),
    ] = "refuse",
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="CSV file with a row for each image: its file, its class and perhaps its split. Several are given as "
            "--labels train.csv --labels val.csv --labels test.csv, or as the folder that holds these three.",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="The columns of --labels, as FILE,LABEL or FILE,LABEL,SPLIT, where they have unusual names.",
        ),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Encoding of names in an archive and of CSV files that are not in UTF-8, such as cp932.",
        ),
    ] = None,
) -> None:
    """Import any images: a folder for each class, or a CSV file that names their classes."""
    from metaray.data.images import import_images

    with _progress() as (progress, tell):
        report = import_images(
            folder,
            out,
            size=_size(size),
            mode=mode,
            invert=invert,
            value_range=None if value_range is None else _range(value_range),
            splits=None if splits is None else _splits(splits),
            seed=seed,
            depth=depth,
            nested=nested,
            labels=labels or (),
            columns=columns.split(",") if columns else (),
            encoding=encoding,
            tell=tell,
            progress=progress,
        )
    _imported(report)


@imports.command(cls=Command)
def glyphs(out: Out) -> None:
    """Write the embedded data set: letters of matplotlib's fonts."""
    from metaray.data.glyphs import build_glyphs

    build_glyphs(out)
    print(f"wrote {out}")


@app.command(cls=Command)
def describe(
    store: Store,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the split scheme to describe; by default all of them.")
    ] = None,
    rotations: Annotated[
        bool, typer.Option(help="Count images turned by 90, 180 and 270 degrees as classes of their own.")
    ] = False,
    ways: Ways = 5,
    shots: Shots = 1,
    queries: Queries = 5,
    gallery: Annotated[Path | None, typer.Option(metavar="FILE", help="PNG file to draw sample episodes to.")] = None,
    verify: Verify = False,
    as_json: AsJson = False,
) -> None:
    """Describe a store: its classes, splits and fingerprint, and how many distinct episodes there are."""
    from metaray.data.describe import describe_store

    description = describe_store(
        store, split, rotations=rotations, ways=ways, shots=shots, queries=queries, verify=verify
    )
    if gallery is not None:
        from metaray.plots.task_pictures import draw_episodes

        draw_episodes(description.source, gallery, "meta-train", **description.spec)
    if as_json:
        print(json.dumps(description.to_dict(), indent=2))
        return
    print(f"{store}: {description.classes} classes, {description.examples} examples of shape {description.shape}")
    print(f"fingerprint: {description.fingerprint}")
    if description.value_range is not None:
        print("value range: {:g} to {:g}".format(*description.value_range))
    counted = f"distinct {ways}-way {shots}-shot episodes"
    rows = [(row.scheme, row.part, str(row.classes), row.sizes, _count(row.episodes)) for row in description.rows]
    print_table(("split", "part", "classes", "examples a class", counted), rows)
    for note in description.notes:
        print(f"note: {note}")
    if gallery is not None:
        print(f"gallery: {gallery}")


@app.command(cls=Command)
def export(
    store: Store,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="New folder to write support/CLASS/ and query/CLASS/ into.")
    ],
    part: Annotated[
        Literal["meta-train", "meta-val", "meta-test"],
        typer.Option(metavar="PART", help="Whose classes to draw from: meta-train, meta-val or meta-test."),
    ] = "meta-test",
    split: Annotated[str, typer.Option(metavar="NAME", help="Name of the split scheme.")] = "default",
    ways: Ways = 5,
    shots: Shots = 1,
    queries: Queries = 5,
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, metavar="N", help="Seed of the sequence of episodes.")] = 0,
    index: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, metavar="N", help="Which episode of the sequence to write.")
    ] = 0,
) -> None:
    """Write one episode as folders of image files, for instance to try `metaray adapt` on."""
    from metaray.episodes.export import export_episode, source_named

    spec = {"ways": ways, "shots": shots, "queries": queries}
    export_episode(source_named(store, split), spec, part, seed, index, out)
    print(f"wrote {out}/support and {out}/query")


def _imported(report: "ImportReport") -> None:
    schemes = ", ".join(report.schemes)
    print(f"wrote {report.path}: {report.classes} classes, {report.examples} examples, splits {schemes}")
    for note in report.notes:
        print(f"note: {note}")


def _count(episodes: int) -> str:
    return f"{Decimal(episodes):.3e}" if episodes >= 10**6 else str(episodes)


@contextmanager
def _progress() -> Iterator[tuple[Callable[[int, int], None], Callable[[str], None]]]:
    """A bar on standard error while images are read, and what writes a line above it."""
    from rich.console import Console
    from rich.progress import Progress
    from rich.text import Text

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading", total=None)
        yield (
            lambda done, total: progress.update(task, completed=done, total=total),
            lambda line: console.print(Text(line), soft_wrap=True),  # as Text: a class called "[red]" is no markup
        )


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"--size {text!r}: write SIDE or HEIGHTxWIDTH in pixels, for instance 84 or 32x64")
    return int(parts[0]), int(parts[-1])


def _range(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low, high = math.nan, math.nan
    if not -math.inf < low < high < math.inf:
        raise InputError(f"--range {text!r}: write LOW,HIGH, the numbers of black and white, for instance 0,4095")
    return low, high


def _splits(text: str) -> Path | tuple[float, float, float]:
    parts = text.split(",")
    if len(parts) != 3:
        return Path(text)
    try:
        train, val, test = (float(part) for part in parts)
    except ValueError:
        raise InputError(f"--splits {text!r}: three fractions such as 0.64,0.16,0.2, or a folder") from None
    return train, val, test
