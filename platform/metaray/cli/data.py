"""`metaray data`: import and describe class stores."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from metaray.cli.options import AsJson, Verify
from metaray.cli.table import print_table
from metaray.errors import InputError

if TYPE_CHECKING:
    from metaray.data.importing import ImportReport

app = typer.Typer(help="Import, describe and export class stores.")
imports = typer.Typer(help="Build a store file from raw data.")
app.add_typer(imports, name="import")

Out = Annotated[Path, typer.Option(help="the store file to write")]
Store = Annotated[str, typer.Argument(help="a store file, or 'glyphs' for the embedded one")]
Ways = Annotated[int, typer.Option(min=2, help="classes an episode")]
Shots = Annotated[int, typer.Option(min=1, help="support examples a class")]
Queries = Annotated[int, typer.Option(min=1, help="query examples a class")]


@imports.command()
def omniglot(
    source: Annotated[list[Path], typer.Argument(help="the two official zips, their folder, or extracted folders")],
    out: Out = Path("omniglot.arrow"),
) -> None:
    """Omniglot at 28x28, with the splits vinyals, maml and lake."""
    from metaray.data.omniglot import import_omniglot

    with _progress() as (progress, _):
        report = import_omniglot(source, out, progress=progress)
    _imported(report)


@imports.command()
def images(
    folder: Annotated[
        Path, typer.Argument(help="a folder with a folder of images per class; or a zip or tar archive of it")
    ],
    out: Out,
    size: Annotated[str, typer.Option(help="size of the examples in pixels: SIDE or HEIGHTxWIDTH")] = "84",
    mode: Annotated[Literal["RGB", "L"], typer.Option(help="store the images in colour (RGB) or grey (L)")] = "RGB",
    invert: Annotated[bool, typer.Option(help="store dark ink on light paper as high numbers")] = False,
    value_range: Annotated[
        str | None,
        typer.Option(
            "--range", help="LOW,HIGH: the numbers of black and white, for images of more than 8 bits or of floats"
        ),
    ] = None,
    splits: Annotated[
        str | None,
        typer.Option(
            help="three fractions of the classes, such as 0.64,0.16,0.2; or a folder with train.txt, val.txt and "
            "test.txt, a class name a line. Without it, folders named train, val and test (or a CSV file) give the "
            "splits; where there are none, these fractions do"
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="seed of classes that are dealt at random")] = 0,
    depth: Annotated[
        int, typer.Option(min=1, help="how many folders deep the class folders lie; 2 takes superclass/class/image")
    ] = 1,
    nested: Annotated[
        Literal["refuse", "join", "skip"],
        typer.Option(
            help="what to do with files in folders inside a class folder: refuse them, count them to the class (join), "
            "or leave them out (skip)"
        ),
    ] = "refuse",
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            help="CSV file with a row an image: its file, its class and perhaps its split. May be repeated, as in "
            "--labels train.csv --labels val.csv --labels test.csv; or the folder that holds these three"
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="the columns FILE,LABEL or FILE,LABEL,SPLIT of --labels, where they have unusual names"),
    ] = None,
    encoding: Annotated[
        str | None,
        typer.Option(help="encoding of names in an archive and of CSV files that are not in UTF-8, such as cp932"),
    ] = None,
) -> None:
    """Any images: a folder per class, or a CSV file that names their classes."""
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


@imports.command()
def glyphs(out: Out) -> None:
    """The embedded data set: letters of matplotlib's fonts."""
    from metaray.data.glyphs import build_glyphs

    build_glyphs(out)
    print(f"wrote {out}")


@app.command()
def describe(
    store: Store,
    split: Annotated[str | None, typer.Option(help="split scheme; all of them by default")] = None,
    rotations: Annotated[bool, typer.Option(help="count images turned by 90, 180 and 270 degrees as classes")] = False,
    ways: Ways = 5,
    shots: Shots = 1,
    queries: Queries = 5,
    gallery: Annotated[Path | None, typer.Option(help="PNG file to draw sample episodes to")] = None,
    verify: Verify = False,
    as_json: AsJson = False,
) -> None:
    """Classes, splits, fingerprint, and how many distinct episodes a spec allows."""
    from metaray.data.describe import describe_store

    description = describe_store(
        store, split, rotations=rotations, ways=ways, shots=shots, queries=queries, verify=verify
    )
    if gallery is not None:
        description.draw(gallery)
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


@app.command()
def export(
    store: Store,
    out: Annotated[Path, typer.Option(help="new folder to write support/CLASS/ and query/CLASS/ into")],
    part: Annotated[Literal["meta-train", "meta-val", "meta-test"], typer.Option(help="of the classes")] = "meta-test",
    split: Annotated[str, typer.Option(help="split scheme")] = "default",
    ways: Ways = 5,
    shots: Shots = 1,
    queries: Queries = 5,
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, help="of the sequence of episodes")] = 0,
    index: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="which episode of the sequence")] = 0,
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
