"""Specs of numbers, ranges and Meta-Dataset's sampling: read, written, refused, drawn."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaray.config import replace
from metaray.data.draws import Draws
from metaray.data.episode_spec import EpisodeSpec, Sizes
from metaray.errors import InputError
from metaray.imports import EVERY_FIELD

META = EpisodeSpec.meta_dataset()


def parse(**values: Any) -> EpisodeSpec:
    return EpisodeSpec.parse({"shots": 1, "queries": 1, **values}, where="episodes")


def test_a_source_that_draws_plain_sizes_refuses_other_samplings() -> None:
    with pytest.raises(InputError, match=r"Meta-Dataset's sampling is of stores of classes; this source takes numbers"):
        META.draw(Draws(0, "meta-train", 0))


def test_json_of_numbers_is_what_it_was() -> None:
    spec = EpisodeSpec(ways=5, shots=1, queries=15)
    assert json.dumps(spec.model_dump(mode="json")) == '{"ways": 5, "shots": 1, "queries": 15}'
    every = spec.model_dump(mode="json", context=EVERY_FIELD)
    assert every == {"ways": 5, "shots": 1, "queries": 15, "sampling": "plain", "max_support": None}
    assert EpisodeSpec.parse(every, where="episodes") == spec


@pytest.mark.parametrize(
    "spec",
    [
        EpisodeSpec(ways=(5, 20), shots=(1, 5), queries="rest"),
        EpisodeSpec(shots=(2, 3), queries=(1, 9)),
        META,
        EpisodeSpec.meta_dataset(ways=7, shots=(1, 10), queries=3, max_support=70),
    ],
)
def test_json_round_trip(spec: EpisodeSpec) -> None:
    for context in (None, EVERY_FIELD):
        text = json.dumps(spec.model_dump(mode="json", context=context))
        assert EpisodeSpec.parse(json.loads(text), where="episodes") == spec
    assert EpisodeSpec(**spec.model_dump()) == spec, "as samplers are sent it"


@pytest.mark.parametrize("written", ["5..20", [5, 20], (5, 20)])
def test_ways_to_write_a_range(written: object) -> None:
    assert parse(ways=written).ways == (5, 20)


def test_a_range_of_one_number_is_a_number() -> None:
    assert parse(ways=[5, 5], shots="2..2") == EpisodeSpec(ways=5, shots=2, queries=1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ways": 0}, r"ways: Input should be greater than or equal to 1 \(got 0\)"),
        ({"ways": "0..3"}, r"ways: a range begins at 1 or above \(got 0\.\.3\)"),
        ({"shots": [5, 2]}, r"shots: a range goes from its lower to its upper end \(got 5\.\.2\)"),
        ({"shots": "few"}, r"shots: a number, or a range such as 5\.\.20 or \[5, 20\] \(got 'few'\)"),
        ({"shots": "rest"}, r"shots: a number, or a range .*\(got 'rest'\)"),
        ({"ways": [1, 2, 3]}, r"ways: a number, or a range .*\(got \[1, 2, 3\]\)"),
        ({"ways": "1.."}, r"ways: a number, or a range .*\(got '1\.\.'\)"),
        ({"queries": "all"}, r"queries: .* or 'rest' for all that are left of each class \(got 'all'\)"),
        ({"max_support": 9}, r"max_support: .* sampling='meta-dataset' .*\(got 9\)"),
        ({"sampling": "meta-dataset"}, r"shots: .* 1\.\.100 in the paper \(got 1\)"),
        ({"sampling": "meta-dataset", "shots": "2..9"}, r"shots: .*\(got 2\.\.9\)"),
        ({"sampling": "meta-dataset", "shots": "1..9", "queries": "rest"}, r"queries: .*10 in the paper \(got rest\)"),
        (
            {"sampling": "meta-dataset", "shots": "1..9", "ways": "5..50", "max_support": 49},
            "max_support: 49 support examples are too few for 50 ways",
        ),
        ({"sampling": "metadataset"}, "sampling: unknown value 'metadataset'. Did you mean 'meta-dataset'"),
    ],
)
def test_what_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"episodes: {message}"):
        parse(**values)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (EpisodeSpec(ways=5, shots=1, queries=1), "5-way 1-shot, 1 query a class"),
        (EpisodeSpec(shots=10, queries=5), "10-shot, 5 queries"),
        (EpisodeSpec(shots=(1, 10), queries=5), "1 to 10 shots, 5 queries"),
        (EpisodeSpec(ways=5, shots=1, queries="rest"), "5-way 1-shot, all other examples as queries"),
        (EpisodeSpec(ways=5, shots=(1, 2), queries=(1, 2)), "5 ways, 1 to 2 shots, 1 to 2 queries a class"),
        (
            EpisodeSpec(ways=(5, 20), shots=(1, 5), queries="rest"),
            "5 to 20 ways, 1 to 5 shots, all other examples as queries",
        ),
        (META, "Meta-Dataset's sampling: 5 to 50 ways, at most 500 shots in all, up to 10 queries a class"),
    ],
)
def test_it_reads_well(spec: EpisodeSpec, text: str) -> None:
    assert str(spec) == text


def test_what_others_ask_for() -> None:
    plain = EpisodeSpec(ways=5, shots=2, queries=3)
    assert plain.is_fixed and plain.fixed_ways == plain.fewest_ways == plain.most_ways == 5
    assert plain.most_support == 10 and plain.chance() == 1 / 5
    assert plain.largest == plain.smallest == Sizes(5, 2, 3)
    ranged = EpisodeSpec(ways=(2, 4), shots=(1, 3), queries=(5, 6))
    assert not ranged.is_fixed and ranged.fixed_ways is None
    assert ranged.smallest == Sizes(2, 1, 5) and ranged.largest == Sizes(4, 3, 6)
    assert ranged.most_support == 12 and ranged.chance() == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 3)
    assert EpisodeSpec.meta_dataset(ways=(2, 50)).chance(3) == pytest.approx((1 / 2 + 1 / 3) / 2)
    rest = EpisodeSpec(ways=2, shots=1, queries="rest")
    assert not rest.is_fixed and rest.most_queries is None and rest.fewest_queries == 1
    assert rest.largest.least_examples == 2
    assert not META.is_fixed and META.most_support == 500 and META.fewest_queries == 1 and META.most_queries == 10
    assert not replace(META, ways=5).is_fixed


def test_numbers_draw_nothing() -> None:
    draws, fresh = Draws(0, "meta-train", 3), Draws(0, "meta-train", 3)
    assert EpisodeSpec(ways=5, shots=1, queries=2).draw(draws) == Sizes(5, 1, 2)
    assert draws.raw(1) == fresh.raw(1)


ranges = st.tuples(st.integers(1, 9), st.integers(0, 9)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(ranges, ranges, st.one_of(st.just("rest"), ranges), st.integers(0, 2**64 - 1))
def test_sizes_are_pure_and_within_their_ranges(
    ways: tuple[int, int], shots: tuple[int, int], queries: Any, index: int
) -> None:
    spec = parse(ways=ways, shots=shots, queries=queries)
    first, again = (spec.draw(Draws(1, "meta-val", index)) for _ in range(2))
    assert first == again
    assert ways[0] <= first.ways <= ways[1] and shots[0] <= first.shots <= shots[1]
    assert first.queries is None if queries == "rest" else queries[0] <= (first.queries or 0) <= queries[1]


def test_each_number_of_a_range_is_drawn_about_as_often() -> None:
    spec = EpisodeSpec(ways=(5, 8), shots=1, queries=1)
    found = [spec.draw(Draws(0, "meta-train", index)).ways for index in range(4000)]
    assert all(900 < found.count(ways) < 1100 for ways in (5, 6, 7, 8))
