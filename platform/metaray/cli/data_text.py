"""`metaray data import text`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from metaray.cli.store_options import Out, Seed, import_progress, splits_of
from metaray.errors import InputError


def text(
    source: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH",
            help="CSV files, files with a JSON object on each line (.jsonl), or folders with a folder of .txt files "
            "for each class. Several are taken together; called train, val and test, they give the splits.",
        ),
    ],
    out: Out,
    tokenizer: Annotated[
        str,
        typer.Option(
            metavar="PATH", help="The folder of a pretrained encoder, its tokenizer.json, or the URI of either."
        ),
    ],
    text_column: Annotated[
        str, typer.Option("--text", metavar="COLUMN", help="The column of the texts; usual names are found.")
    ] = "",
    label: Annotated[
        str, typer.Option(metavar="COLUMN", help="The column of the classes; usual names are found.")
    ] = "",
    split_column: Annotated[
        str, typer.Option("--split", metavar="COLUMN", help="The column of the split of each row's class.")
    ] = "",
    group: Annotated[
        str, typer.Option(metavar="COLUMN", help="The column of the group of each row's class, such as a domain.")
    ] = "",
    longest: Annotated[
        int,
        typer.Option(
            min=3, metavar="N", help="Number of tokens that are read of a text: the first ones of a longer one."
        ),
    ] = 128,
    special: Annotated[
        bool,
        typer.Option(
            help="Put around each text the tokens that the tokenizer puts there; static word embeddings go without."
        ),
    ] = True,
    splits: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FRACTIONS",
            help="Three fractions of the classes, such as 0.64,0.16,0.2; a folder with train.txt, val.txt and "
            "test.txt, with a class on each line; or several schemes, each as --splits NAME=FOLDER.",
        ),
    ] = None,
    seed: Seed = 0,
    empty: Annotated[
        Literal["refuse", "skip"],
        typer.Option(metavar="refuse|skip", help="What to do with empty texts: refuse them, or leave them out (skip)."),
    ] = "refuse",
    encoding: Annotated[
        str | None, typer.Option(metavar="NAME", help="Encoding of files that are not in UTF-8, such as cp1252.")
    ] = None,
) -> None:
    """Import texts with labels, as tokens of a pretrained encoder."""
    from metaray.data.encoder_folder import read_tokenizer
    from metaray.data.preprocessing import TextPreprocessing
    from metaray.data.texts.importing import import_texts
    from metaray.data.texts.rows import Columns

    preprocessing = TextPreprocessing.parse(
        {"tokenizer": read_tokenizer(tokenizer), "longest": longest, "special": special}, where="import"
    )
    with import_progress() as (progress, tell):
        report = import_texts(
            source,
            out,
            preprocessing,
            columns=Columns(text_column, label, split_column, group),
            splits=_splits(splits or []),
            seed=seed,
            empty=empty,
            encoding=encoding,
            tell=tell,
            progress=progress,
        )
    schemes = ", ".join(report.schemes)
    print(f"wrote {report.path}: {report.classes} classes, {report.examples} texts, splits {schemes}")
    for note in report.notes:
        print(f"note: {note}")


def _splits(given: list[str]) -> dict[str, Path] | Path | tuple[float, float, float] | None:
    """One choice, or several schemes by name."""
    if len(given) == 1 and "=" not in given[0]:
        return splits_of(given[0])
    schemes: dict[str, Path] = {}
    for one in given:
        name, equals, folder = one.partition("=")
        if not (name and equals and folder):
            raise InputError(f"--splits {one!r}: where there are several schemes, give each as NAME=FOLDER")
        if name in schemes:
            raise InputError(f"--splits {one!r}: there is a scheme {name!r} already")
        schemes[name] = Path(folder)
    return schemes or None
