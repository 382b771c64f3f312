"""`metaray data`: import and describe class stores."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from metaray.data.importing import ImportReport
from metaray.errors import InputError

app = typer.Typer(help="Class stores.", no_args_is_help=True)
imports = typer.Typer(help="Build a store file from raw data.", no_args_is_help=True)
app.add_typer(imports, name="import")

Out = Annotated[Path, typer.Option(help="the store file to write")]


@imports.command()
def omniglot(
    source: Annotated[list[Path], typer.Argument(help="the two official zips, their folder, or extracted folders")],
    out: Out = Path("omniglot.arrow"),
) -> None:
    """Omniglot at 28x28, with the splits vinyals, maml and lake."""
    from metaray.data.omniglot import import_omniglot

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading", total=None)
        report = import_omniglot(source, out, progress=lambda d, t: progress.update(task, completed=d, total=t))
    _imported(report)


@imports.command()
def images(
    folder: Annotated[Path, typer.Argument(help="a folder (or zip) with a folder of images per class")],
    out: Out,
    size: Annotated[str, typer.Option(help="pixels: SIDE or HEIGHTxWIDTH")] = "84",
    mode: Annotated[Literal["RGB", "L"], typer.Option(help="colour or grey")] = "RGB",
    invert: Annotated[bool, typer.Option(help="for dark ink on light paper")] = False,
    splits: Annotated[
        str, typer.Option(help="a folder with train.txt, val.txt, test.txt, or three fractions")
    ] = "0.64,0.16,0.2",
    seed: Annotated[int, typer.Option(min=0, help="of the fractions")] = 0,
) -> None:
    """Any images, a folder per class."""
    from metaray.data.images import import_images

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading", total=None)
        report = import_images(
            folder,
            out,
            size=_size(size),
            mode=mode,
            invert=invert,
            splits=_splits(splits),
            seed=seed,
            progress=lambda d, t: progress.update(task, completed=d, total=t),
        )
    _imported(report)


@imports.command()
def glyphs(out: Out) -> None:
    """The embedded data set: letters of the fonts that matplotlib ships."""
    from metaray.data.glyphs import build_glyphs

    build_glyphs(out)
    print(f"wrote {out}")


@app.command()
def describe(
    store: Annotated[str, typer.Argument(help="a store file, or 'glyphs'")],
    split: Annotated[str | None, typer.Option(help="split scheme; all of them by default")] = None,
    rotations: Annotated[bool, typer.Option(help="count rotated classes")] = False,
    ways: Annotated[int, typer.Option(min=2)] = 5,
    shots: Annotated[int, typer.Option(min=1)] = 1,
    queries: Annotated[int, typer.Option(min=1)] = 5,
    gallery: Annotated[Path | None, typer.Option(help="PNG of sample episodes")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Classes, splits, fingerprint, and how many distinct episodes a spec allows."""
    from metaray.data.describe import describe_store

    description = describe_store(store, split, rotations=rotations, ways=ways, shots=shots, queries=queries)
    if gallery is not None:
        description.draw(gallery)
    if as_json:
        print(json.dumps(description.to_dict(), indent=2))
        return
    print(f"{store}: {description.classes} classes, {description.examples} examples of shape {description.shape}")
    print(f"fingerprint: {description.fingerprint}")
    table = Table("split", "part", "classes", "examples a class", f"distinct {ways}-way {shots}-shot episodes")
    for row in description.rows:
        count = f"{row.episodes:.3e}" if row.episodes >= 10**6 else str(row.episodes)
        table.add_row(row.scheme, row.part, str(row.classes), row.sizes, count)
    Console().print(table)
    if gallery is not None:
        print(f"gallery: {gallery}")


@app.command()
def export(
    store: Annotated[str, typer.Argument(help="a store file, or 'glyphs'")],
    out: Annotated[Path, typer.Option(help="folder to write support/CLASS/ and query/CLASS/ into")],
    part: Annotated[Literal["meta-train", "meta-val", "meta-test"], typer.Option()] = "meta-test",
    split: Annotated[str, typer.Option(help="split scheme")] = "default",
    ways: Annotated[int, typer.Option(min=2)] = 5,
    shots: Annotated[int, typer.Option(min=1)] = 1,
    queries: Annotated[int, typer.Option(min=1)] = 5,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    index: Annotated[int, typer.Option(min=0, help="which episode")] = 0,
) -> None:
    """Write one episode as folders of image files, for instance to try `metaray adapt` on."""
    from metaray.episodes.export import export_episode, source_named

    spec = {"ways": ways, "shots": shots, "queries": queries}
    export_episode(source_named(store, split), spec, part, seed, index, out)
    print(f"wrote {out}/support and {out}/query")


def _imported(report: ImportReport) -> None:
    schemes = ", ".join(report.schemes)
    print(f"wrote {report.path}: {report.classes} classes, {report.examples} examples, splits {schemes}")
    for note in report.notes:
        print(f"note: {note}")


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise InputError(f"--size {text!r}: write SIDE or HEIGHTxWIDTH in pixels, for instance 84 or 32x64")
    return int(parts[0]), int(parts[-1])


def _splits(text: str) -> Path | tuple[float, float, float]:
    parts = text.split(",")
    if len(parts) != 3:
        return Path(text)
    try:
        train, val, test = (float(part) for part in parts)
    except ValueError:
        raise InputError(f"--splits {text!r}: three fractions such as 0.64,0.16,0.2, or a folder") from None
    return train, val, test
