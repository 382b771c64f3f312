"""Pictures of tasks: the support set on the left, queries on the right, a row a class."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaray.data.draws import Draws, Split
from metaray.data.episode_spec import EpisodeSpec
from metaray.data.ragged import shape_text
from metaray.data.source import Source
from metaray.errors import InputError
from metaray.plots.palette import CROSS, MUTED, RIGHT, WRONG

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TILE_INCHES = 0.62
DOTS_PER_INCH = 120
# In tiles: the gap between support and queries, the room for a class name, for a caption and for a title.
GAP, NAME_WIDTH, CAPTION_HEIGHT, TITLE_HEIGHT = 0.5, 3.4, 0.3, 0.7


class TaskPicture(NamedTuple):
    """The drawing of one task: its support images, and query images with captions.

    Attributes:
        support_x: Support images [n, channels, height, width], uint8 or floats in [0, 1], with 1 or 3 channels.
        support_labels: Class names [n] of the support images; each class is a row, in the order of first appearance.
        query_x: Query images [m, channels, height, width], spread over the rows in order unless `query_labels` says the
            row.
        query_captions: Captions [m] of the query images, for instance predictions; empty for none.
        correct: Whether each caption is right [m], shown by its colour, and by a cross before a wrong one; None, or
            None items, if unknown.
        title: Title of the drawing.
        query_labels: Class names [m], each of the row that a query image belongs to; empty if unknown.
    """

    support_x: NDArray[Any]
    support_labels: Sequence[str]
    query_x: NDArray[Any]
    query_captions: Sequence[str] = ()
    correct: Sequence[bool | None] | None = None
    title: str = ""
    query_labels: Sequence[str] = ()


def draw_task(
    support_x: NDArray[Any],
    support_labels: Sequence[str],
    query_x: NDArray[Any],
    query_captions: Sequence[str],
    path: Path,
    *,
    correct: Sequence[bool | None] | None = None,
    title: str = "",
) -> None:
    """Draw one task to a PNG file; the arguments are those of `TaskPicture`.

    Raises:
        InputError: If `path` cannot be written.
    """
    draw_tasks([TaskPicture(support_x, support_labels, query_x, query_captions, correct, title)], path)


def draw_episodes(
    source: Source,
    path: Path,
    split: Split,
    spec: EpisodeSpec,
    *,
    count: int = 2,
    seed: int = 0,
) -> None:
    """Draw the first `count` tasks of a source to a PNG file.

    Raises:
        InputError: If the source yields no images, the split no such tasks, or `path` cannot be written.
    """
    if len(source.feature_shape) != 3:
        raise InputError(f"a gallery shows images, but an example has the shape {shape_text(source.feature_shape)}")
    source.check(split, spec)
    pictures = []
    for index in range(count):
        task = source.sample_task(Draws(seed, split, index), split, spec)
        names = [source.class_name(int(class_id)) for class_id in task.class_ids]
        labels, asked = ([names[label] for label in side.y] for side in task[:2])
        title = f"{split}, task {index}: {spec.in_short}, support and queries"
        pictures.append(TaskPicture(task.support.x, labels, task.query.x, title=title, query_labels=asked))
    draw_tasks(pictures, path)


def draw_tasks(pictures: Sequence[TaskPicture], path: Path) -> None:
    """Draw tasks below one another to a PNG file.

    Raises:
        InputError: If an example is not an image, or `path` cannot be written.
    """
    # Imported here, since it takes longer than all the rest of the package. Not pyplot: it keeps global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sizes = [_size(picture) for picture in pictures]
    width, height = max(size[0] for size in sizes), sum(size[1] for size in sizes)
    figure = Figure(figsize=(width * TILE_INCHES, height * TILE_INCHES), dpi=DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    top = 0.0
    for picture, size in zip(pictures, sizes, strict=True):
        _draw(axes, picture, top)
        top += size[1]
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    save_picture(figure, path, dpi=DOTS_PER_INCH)


def save_picture(figure: "Figure", path: Path, *, dpi: int) -> None:
    """Save a figure as a PNG file, making missing folders.

    Raises:
        InputError: If `path` cannot be written.
    """
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="png", dpi=dpi)
    except OSError as error:
        raise InputError(f"{path}: can't write the picture: {error.strerror}") from None


def _rows(picture: TaskPicture) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for i, label in enumerate(picture.support_labels):
        rows.setdefault(label, []).append(i)
    return rows


def _places(picture: TaskPicture) -> list[tuple[int, int]]:
    """Row and column of each query."""
    rows = list(_rows(picture))
    if not picture.query_labels:
        columns = -(-len(picture.query_x) // len(rows))
        return [divmod(i, columns) for i in range(len(picture.query_x))]
    filled = Counter[str]()
    found = []
    for label in picture.query_labels:
        found.append((rows.index(label), filled[label]))
        filled[label] += 1
    return found


def _layout(picture: TaskPicture) -> tuple[int, int, float]:
    """Support columns, query columns, and the height of a row in tiles."""
    rows = _rows(picture)
    row_height = 1.08 + (CAPTION_HEIGHT if len(picture.query_captions) else 0)
    return max(map(len, rows.values())), 1 + max(column for _, column in _places(picture)), row_height


def _size(picture: TaskPicture) -> tuple[float, float]:
    """Width and height in tiles."""
    shots, queries, row_height = _layout(picture)
    return NAME_WIDTH + 1.08 * (shots + queries) + 2 * GAP, len(_rows(picture)) * row_height + TITLE_HEIGHT


def _draw(axes: "Axes", picture: TaskPicture, top: float) -> None:
    shots, _, row_height = _layout(picture)
    axes.text(0.15, top + TITLE_HEIGHT / 2, picture.title, fontsize=8, va="center", weight="bold")
    top += TITLE_HEIGHT
    query_left = NAME_WIDTH + 1.08 * shots + GAP
    for row, (label, examples) in enumerate(_rows(picture).items()):
        y = top + row * row_height
        # Names are no formulas, whatever dollars they hold.
        name = _shorten(label, 34)
        axes.text(NAME_WIDTH - 0.15, y + 0.5, name, fontsize=6, ha="right", va="center", parse_math=False)
        for column, i in enumerate(examples):
            _tile(axes, picture.support_x[i], NAME_WIDTH + 1.08 * column, y)
    for i, (image, (row, column)) in enumerate(zip(picture.query_x, _places(picture), strict=True)):
        x, y = query_left + 1.08 * column, top + row * row_height
        _tile(axes, image, x, y)
        if len(picture.query_captions):
            right = None if picture.correct is None else picture.correct[i]
            wrong, place = right is not None and not right, (x + 0.5, y + 1.0 + CAPTION_HEIGHT / 2)
            text = f"{CROSS} " * wrong + _shorten(picture.query_captions[i], 14 - 2 * wrong)
            colour = MUTED if right is None else WRONG if wrong else RIGHT
            axes.text(*place, text, fontsize=4.5, ha="center", va="center", color=colour, parse_math=False)


def _tile(axes: "Axes", image: NDArray[Any], x: float, y: float) -> None:
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise InputError(f"an example of shape {image.shape} can't be drawn: it is no [1 or 3, height, width] image")
    pixels = np.moveaxis(image, 0, -1)
    highest = 255 if image.dtype == np.uint8 else 1
    shown = pixels[..., 0] if image.shape[0] == 1 else pixels
    extent = (x, x + 1, y + 1, y)
    axes.imshow(shown, cmap="gray", vmin=0, vmax=highest, extent=extent, aspect="auto", interpolation="nearest")


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else f"...{text[3 - length :]}"
