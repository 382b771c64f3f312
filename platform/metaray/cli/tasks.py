"""`metaray adapt`, `metaray extend` and `metaray predict`: a new task learned, kept, grown, and asked."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metaray.cli.imports import import_from_here
from metaray.cli.options import AsJson, DecimalMark, TrackingUri, Trust, Verbose
from metaray.cli.use import Model
from metaray.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from metaray.learners.growth import How
    from metaray.learners.learner import AdaptedTask, Learner

TaskFolder = Annotated[
    Path, typer.Argument(metavar="TASK", help="The folder of an adapted task, as `metaray adapt --save` writes it.")
]
QUERY = (
    "What to predict for: an image, a folder of images, or a folder with a folder for each class, to be told how many "
    "are right; or a CSV file."
)


def adapt(
    model: Model,
    support: Annotated[
        Path,
        typer.Option(
            metavar="PATH", help="Known examples: a folder with a folder of images for each class, or a CSV file."
        ),
    ],
    query: Annotated[Path | None, typer.Option(metavar="PATH", help=QUERY)] = None,
    save: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Folder to keep the adapted task in, for `metaray predict`."),
    ] = None,
    keep_support: Annotated[
        bool,
        typer.Option(
            "--keep-support",
            help="Keep the known examples in that folder, too, for `metaray extend`; class means, ridge regression and "
            "the like, of a network without batch norm, can do without.",
        ),
    ] = False,
    x: Annotated[
        str | None, typer.Option(metavar="COLUMNS", help="Columns of the CSV files that are inputs, as in age,weight.")
    ] = None,
    y: Annotated[
        str | None,
        typer.Option(metavar="COLUMNS", help="Columns of the CSV files that are targets or labels, as in dose."),
    ] = None,
    decimal: DecimalMark = ".",
    inner_steps: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Number of inner steps; by default the learner's own.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PNG file to draw the task and the predictions to.")
    ] = None,
    tracking_uri: TrackingUri = None,
    trust: Trust = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Adapt a learner to a new task, and label other images or rows; in regression, predict y from x."""
    from functools import partial

    import metaray
    from metaray.cli import show_task
    from metaray.serving.tables import is_table

    _check_wishes(query, save, picture)
    if keep_support and save is None:
        raise InputError("--keep-support is about the folder of the adapted task: give --save, too")
    load = partial(metaray.load, model, tracking_uri=tracking_uri, trust=trust or [])
    if trust:
        import_from_here()
    if is_table(support):
        task = _to_rows(load(), support, query, x, y, decimal, inner_steps, picture, as_json)
    elif x or y:
        raise InputError("--x and --y name columns of CSV files; --support is none")
    else:
        task = _to_images(load, support, query, inner_steps, picture, as_json)
    if save is not None:
        task.save(save, support=keep_support)
        if query is None or not as_json:
            show_task.saved(task, save, as_json=as_json)


def extend(
    task: TaskFolder,
    support: Annotated[
        Path,
        typer.Option(
            metavar="PATH",
            help="Further known examples, of known or new classes: a folder with a folder of images for each class, or "
            "a CSV file.",
        ),
    ],
    query: Annotated[Path | None, typer.Option(metavar="PATH", help=QUERY)] = None,
    save: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Folder to keep the extended task in; that of TASK itself replaces it."),
    ] = None,
    how: Annotated[
        str,
        typer.Option(
            metavar="HOW",
            help="How to learn them: together, as if adapted to all examples at once, or continue, going on from what "
            "the task has learned with the further examples alone.",
        ),
    ] = "together",
    decimal: DecimalMark = ".",
    trust: Trust = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Extend an adapted task by further examples or classes, using what it kept of its support set."""
    import metaray
    from metaray.cli import show_task
    from metaray.serving.folders import read_query, read_support
    from metaray.serving.tables import read_points

    _check_wishes(query, save, None)
    way = _how(how)
    if trust:
        import_from_here()
    before = show_task.doubting(metaray.load_task(task, trust=trust or []))
    learner = before.learner
    if learner.preprocessing.takes_folders:
        images, asked_images = read_support(support), None if query is None else read_query(query)
        grown = before.extend(images.paths, images.labels, how=way)
        if asked_images is not None:
            show_task.predictions(grown, asked_images, as_json=as_json)
    else:
        inputs = len(learner.preprocessing.columns)
        names = {"x": before.columns[:inputs], "y": before.columns[inputs:]}
        known = read_points(support, learner, targets=True, decimal=decimal, **names)
        asked = None if query is None else read_points(query, learner, targets=False, decimal=decimal, **names)
        grown = before.extend(known.x, known.y, how=way)
        if asked is not None:
            show_task.rows(grown, asked, as_json=as_json)
    if save is not None:
        grown.save(save, support=grown.kept.support is not None)
        if query is None or not as_json:
            show_task.saved(grown, save, as_json=as_json)


def predict(
    task: TaskFolder,
    query: Annotated[list[Path], typer.Option(metavar="PATH", help=QUERY)],
    more: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH", help="Further query files, as a shell expands --query *.png to."),
    ] = None,
    decimal: DecimalMark = ".",
    trust: Trust = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Predict with an adapted task: labels of images or of rows; in regression, y from x."""
    import metaray
    from metaray.cli import show_task
    from metaray.serving.folders import read_queries
    from metaray.serving.tables import read_tables

    if trust:
        import_from_here()
    found = show_task.doubting(metaray.load_task(task, trust=trust or []))
    paths = [*query, *(more or [])]
    prepared = found.learner.preprocessing
    if not prepared.takes_folders:
        inputs = found.columns[: len(prepared.columns)]
        targets = found.columns[len(inputs) :]
        show_task.rows(found, read_tables(paths, found.learner, x=inputs, y=targets, decimal=decimal), as_json=as_json)
        return
    show_task.predictions(found, read_queries(paths), as_json=as_json)


def _how(word: str) -> "How":
    """A way to extend a task, by name."""
    from metaray.errors import unknown
    from metaray.learners.growth import WAYS_TO_GROW

    for how in WAYS_TO_GROW:
        if word == how:
            return how
    raise unknown("--how", word, WAYS_TO_GROW)


def _check_wishes(query: Path | None, save: Path | None, picture: Path | None) -> None:
    """What can be wrong before anything is read."""
    from metaray.data.store_file import check_writable
    from metaray.learners.task_file import check_place

    if query is None and save is None:
        raise InputError("give --query, what to predict for, or --save, where to keep the adapted task, or both")
    if picture is not None and query is None:
        raise InputError("--picture draws predictions: give --query, too")
    if picture is not None:
        check_writable(picture)
    if save is not None:
        check_place(save)


def _to_rows(
    learner: "Learner",
    support: Path,
    query: Path | None,
    x: str | None,
    y: str | None,
    decimal: DecimalMark,
    inner_steps: int | None,
    picture: Path | None,
    as_json: bool,
) -> "AdaptedTask":
    """A task of values or classes from CSV files."""
    from dataclasses import replace
    from functools import partial

    from metaray.cli import show_task
    from metaray.serving.tables import read_points, split_names

    read = partial(read_points, learner=learner, x=split_names(x), y=split_names(y), decimal=decimal)
    known = read(support, targets=True)
    asked = None if query is None else read(query, targets=False)
    if picture is not None and not (learner.task.is_curve and learner.preprocessing.feature_shape == (1,)):
        raise InputError("--picture draws functions of one number, and images; this learner takes or gives several")
    task = show_task.doubting(learner.adapt(known.x, known.y, inner_steps=inner_steps))
    task = replace(task, columns=known.names if x or y else ())
    if asked is not None:
        if picture is not None:
            show_task.draw_fit(learner, known, asked, picture, inner_steps=inner_steps)
        show_task.rows(task, asked, picture=picture, as_json=as_json)
    return task


def _to_images(
    load: "Callable[[], Learner]",
    support: Path,
    query: Path | None,
    inner_steps: int | None,
    picture: Path | None,
    as_json: bool,
) -> "AdaptedTask":
    """A task of classes from folders of images, which are looked at before a learner is fetched."""
    from metaray.cli import show_task
    from metaray.serving.folders import read_query, read_support
    from metaray.serving.tables import require_folders

    labelled, asked = read_support(support), None if query is None else read_query(query)
    learner = load()
    require_folders(learner)
    task = show_task.doubting(learner.adapt(labelled.paths, labelled.labels, inner_steps=inner_steps))
    if asked is not None:
        show_task.predictions(task, asked, support=labelled, picture=picture, as_json=as_json)
    return task
