"""The picture of a stream of classes."""

from pathlib import Path

from PIL import Image

from metaray.plots.stream import draw_stream, stream_figure
from metaray.records.stream import StreamCurve


def curve(*orders: tuple[float, ...]) -> StreamCurve:
    return StreamCurve("m", "meta-test", "p", "accuracy", (2, 5, 9), orders, {"class_means": orders})


def test_all_that_is_compared_has_a_line(tmp_path: Path) -> None:
    curves = {"one": curve((1.0, 0.5, 0.2), (0.9, 0.6, 0.3)), "two": curve((1.0, 0.8, 0.7))}
    beside = {"published": [(2, 0.9), (9, 0.1)]}
    (axes,) = stream_figure(curves, "a $title", beside).axes
    assert axes.get_legend_handles_labels()[1] == [
        "class means beside one",
        "class means beside two",
        "published",
        "one",
        "two",
    ]
    means = axes.containers[0].lines[0].get_ydata()  # type: ignore[attr-defined]
    assert list(axes.containers[0].lines[0].get_xdata()) == [2, 5, 9]  # type: ignore[attr-defined]
    assert [round(float(one), 6) for one in means] == [0.95, 0.55, 0.25]
    draw_stream(curves, tmp_path / "stream.png", "a $title", beside)
    with Image.open(tmp_path / "stream.png") as image:
        assert image.format == "PNG"
    assert [path.name for path in tmp_path.iterdir()] == ["stream.png"]
