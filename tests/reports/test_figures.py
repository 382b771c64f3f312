import re
from itertools import pairwise

import pytest

from metaray.plots.axes import FieldAxis
from metaray.reports.figures import INK, LOOKS, chart, label, look
from metaray.reports.search_charts import apart
from tests.reports.html_page import seen


def drawn(told: str = "told", name: str = "a name") -> str:
    def draw(axes: object) -> None:
        axes.plot([0, 1], [1, 2], color=look(0).color, label=name)  # type: ignore[attr-defined]
        axes.set_xlabel(name, color=INK, parse_math=False)  # type: ignore[attr-defined]

    return str(chart(draw, told))


def test_a_chart_is_the_same_each_time_and_says_what_it_shows() -> None:
    assert drawn() == drawn() != drawn("other")
    assert (
        'role="img" aria-label="told" viewBox="0 0 ' in drawn() and "http" not in drawn() and "<metadata" not in drawn()
    )
    assert "var(--series-1)" in drawn() and "var(--ink)" in drawn()


def test_two_charts_of_a_page_share_no_name() -> None:
    seen(drawn(name="one") + drawn(name="two"))
    text = drawn()
    assert set(re.findall(r'(?:href="#|url\(#)([\w-]+)', text)) <= set(re.findall(r' id="([\w-]+)"', text))


def test_names_are_no_markup_and_no_formulas() -> None:
    text = drawn('"><script>', name="<b>$x_1$ \u10d0")
    assert "<script" not in text and "<b>" not in text and "&lt;b&gt;$x_1$ \u10d0" in text


def test_series_differ_without_colour() -> None:
    assert len({one.marker for one in LOOKS}) == len({str(one.linestyle) for one in LOOKS}) == len(LOOKS) == 6
    assert look(6) == look(0)


def test_labels_are_short_and_clean() -> None:
    assert label("x" * 41) == f"{'x' * 26}...{'x' * 11}" and label("x" * 40) == "x" * 40
    assert label("s3://k:hush@b\n c") == "s3://k:***@b c"


@pytest.mark.parametrize("values", [(0.00612, 0.0124, 0.674), (1e-4, 5e-3), (0.5, 0.5), (1.0, 2.0, 40.0)])
def test_labels_of_an_axis_do_not_touch(values: tuple[float, ...]) -> None:
    scale = FieldAxis(values, log=True)
    places = [scale.share(at) for at, _ in apart(scale)]
    assert all(after - before >= 0.13 for before, after in pairwise(places))
    assert [at for at, _ in apart(scale)][:: max(1, len(places) - 1)] == sorted({min(values), max(values)})
