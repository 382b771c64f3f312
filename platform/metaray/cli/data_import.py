"""`metaray data import`: build a store file from raw data."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from metaray.cli import data_table, data_text
from metaray.cli.help import Command, Group
from metaray.cli.store_options import Out, Seed, import_progress, splits_of
from metaray.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from metaray.data.importing import ImportReport
    from metaray.data.normalisation import Normalisation
    from metaray.data.preprocessing import ImagePreprocessing

app = typer.Typer(cls=Group, help="Build a store file from raw data.")
app.command(cls=Command)(data_table.table)
app.command(cls=Command)(data_text.text)

Size = Annotated[str, typer.Option(metavar="SIZE", help="Size of the stored images in pixels: SIDE or HEIGHTxWIDTH.")]
Mode = Annotated[
    Literal["RGB", "L"],
    typer.Option(metavar="RGB|L", help="Whether to store the images in colour (RGB) or in grey (L)."),
]
Invert = Annotated[bool, typer.Option(help="Store dark ink on light paper as high numbers.")]
Resample = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="The filter that resizes images: nearest, box, bilinear, hamming, bicubic or lanczos. Learners resize new "
        "images with the same.",
    ),
]


@app.command(cls=Command)
def omniglot(
    source: Annotated[
        list[Path],
        typer.Argument(metavar="PATH", help="The two official zips, the folder that holds them, or extracted folders."),
    ],
    out: Out = Path("omniglot.arrow"),
    size: Size = "28",
    mode: Mode = "L",
    invert: Invert = True,
    resample: Resample = "lanczos",
    splits: Annotated[
        str | None,
        typer.Option(
            metavar="FRACTIONS",
            help="One more split scheme, called default: three fractions of the classes, such as 0.64,0.16,0.2; or a "
            "folder with train.txt, val.txt and test.txt, with a class such as Latin/character01 on each line.",
        ),
    ] = None,
    seed: Seed = 0,
) -> None:
    """Import Omniglot, in grey at 28x28 unless told otherwise, with the splits vinyals, maml and lake."""
    from metaray.data.omniglot import import_omniglot

    with import_progress() as (progress, _):
        report = import_omniglot(
            source,
            out,
            **_pixels(size, mode, invert, resample),
            splits=None if splits is None else splits_of(splits),
            seed=seed,
            progress=progress,
        )
    _imported(report)


@app.command(cls=Command)
def images(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="A folder with a folder of images for each class; or a zip or tar archive of it."
        ),
    ],
    out: Out,
    size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Size of the stored images in pixels: SIDE (84) or HEIGHTxWIDTH.")
    ] = None,
    mode: Annotated[
        Literal["RGB", "L"] | None,
        typer.Option(metavar="RGB|L", help="Whether to store the images in colour (RGB, the default) or in grey (L)."),
    ] = None,
    invert: Invert = False,
    resample: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The filter that resizes images: nearest, box, bilinear, hamming, bicubic or lanczos. The last is the "
            "default. Learners resize new images with the same.",
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="The folder of a pretrained encoder of images, or a URI of it: images are stored as it was trained on "
            "them, and normalised so.",
        ),
    ] = None,
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
    seed: Seed = 0,
    depth: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="How many folders deep the class folders lie; 2 takes superclass/class/image, and the superclasses as "
            "groups.",
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
            help="The columns of --labels, as FILE,LABEL or FILE,LABEL,SPLIT or FILE,LABEL,SPLIT,GROUP (SPLIT may be "
            "empty), where they have unusual names.",
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

    given = {"size": size, "mode": mode, "invert": invert or None, "resample": resample}
    like = None if encoder is None else _of_encoder(encoder, [name for name, value in given.items() if value])
    with import_progress() as (progress, tell):
        report = import_images(
            folder,
            out,
            **_pixels(size or "84", mode or "RGB", invert, resample or "lanczos"),
            like=like,
            value_range=None if value_range is None else _range(value_range),
            splits=None if splits is None else splits_of(splits),
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


@app.command(cls=Command)
def glyphs(out: Out) -> None:
    """Write the embedded data set: letters of matplotlib's fonts."""
    from metaray.data.glyphs import build_glyphs

    build_glyphs(out)
    print(f"wrote {out}")


def _imported(report: "ImportReport") -> None:
    from metaray.data.normalisation import measured
    from metaray.data.store_file import read_store

    schemes = ", ".join(report.schemes)
    print(f"wrote {report.path}: {report.classes} classes, {report.examples} examples, splits {schemes}")
    for note in report.notes:
        print(f"note: {note}")
    print_normalisations(measured(read_store(report.path)))


def print_normalisations(found: "Mapping[str, Normalisation]") -> None:
    """A line for each split scheme: what `--set` takes to normalise images by what its meta-train has."""
    for scheme, normalisation in found.items():
        print(f"to normalise by {scheme}'s meta-train: {normalisation.settings}")


def _of_encoder(path: str, given: list[str]) -> "ImagePreprocessing":
    """How an encoder's images are prepared."""
    from metaray.data.preprocessing import ImagePreprocessing
    from metaray.models.encoders.encoder import Encoder

    if given:
        raise InputError(
            f"--encoder says how images are prepared: leave out {', '.join(f'--{name}' for name in given)}"
        )
    found = Encoder.parse({"path": path}, where="encoder").architecture
    if not isinstance(found.preprocessing, ImagePreprocessing):
        raise InputError(f"--encoder {path}: it is a {found.kind} encoder, which takes no images")
    return found.preprocessing


def _pixels(size: str, mode: str, invert: bool, resample: str) -> dict[str, Any]:
    """What every importer of image files takes."""
    return {"size": _size(size), "mode": mode, "invert": invert, "resample": resample}


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
