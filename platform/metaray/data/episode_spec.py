"""How many classes and examples an episode has: numbers, or what they are drawn from for each episode."""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from metaray.config import Config
from metaray.data.draws import Draws
from metaray.data.names import counted
from metaray.errors import InputError
from metaray.imports import EVERY_FIELD

MOST_SUPPORT = 500
"""Support examples of an episode in Meta-Dataset, at most."""


def _read(value: Any, instead: str = "") -> Any:
    """A range as a pair, whether it was written 5..20 or [5, 20]; what is none of both is left as it is."""
    if isinstance(value, str):
        low, dots, high = value.partition("..")
        if dots and low.isdecimal() and high.isdecimal():
            return int(low), int(high)
        if value.isdecimal():
            return int(value)
    elif not isinstance(value, list | tuple) or (len(value) == 2 and all(type(end) is int for end in value)):
        return value
    raise ValueError(f"a number, or a range such as 5..20 or [5, 20]{instead} (got {value!r})")


def _read_queries(value: Any) -> Any:
    return value if value == "rest" else _read(value, ", or 'rest' for all that are left of each class")


def _ascending(ends: tuple[int, int]) -> int | tuple[int, int]:
    low, high = ends
    if low < 1:
        raise ValueError(f"a range begins at 1 or above (got {low}..{high})")
    if low > high:
        raise ValueError(f"a range goes from its lower to its upper end (got {low}..{high})")
    return low if low == high else ends


def _form(value: Any) -> str:
    """The member of a union that a value is read as; in brackets, since users never wrote it."""
    if value == "rest":
        return "(rest)"
    return "(range)" if isinstance(value, list | tuple) else "(number)"


Number = Annotated[int, Field(ge=1), Tag("(number)")]
Range = Annotated[tuple[int, int], AfterValidator(_ascending), Tag("(range)")]
Rest = Annotated[Literal["rest"], Tag("(rest)")]
Count = Annotated[Number | Range, Discriminator(_form), BeforeValidator(_read)]
"""A number, or a range (lowest, highest), written [5, 20] in JSON and 5..20 on the command line."""


class Sizes(NamedTuple):
    """The sizes of one episode: ways, shots and queries of each class; None as queries takes all the rest."""

    ways: int
    shots: int
    queries: int | None

    @property
    def least_examples(self) -> int:
        """Number of examples that a class needs."""
        return self.shots + (1 if self.queries is None else self.queries)


class EpisodeSpec(Config):
    """The size of episodes: how many classes they have, and how many examples of each class.

    A number holds for every episode. From a range each episode draws a number uniformly, one for all its classes.
    Meta-Dataset's sampling (Triantafillou et al., ICLR 2020, arXiv:1903.03096, section 3.2; see `meta_dataset_sizes`)
    gives each class its own number of shots: `EpisodeSpec.meta_dataset()` has the paper's numbers.

    Example:
        >>> print(EpisodeSpec(ways=5, shots=1, queries=15))
        5-way 1-shot, 15 queries a class
        >>> print(EpisodeSpec(ways=(5, 20), shots=(1, 5), queries="rest"))
        5 to 20 ways, 1 to 5 shots, all other examples as queries

    Attributes:
        ways: Number of classes N of an episode, or a range of numbers; 1 for regression and binary tasks. In
            Meta-Dataset's sampling a split or group with fewer classes than the largest number is used, too: its
            episodes have at most that many ways.
        shots: Number of support examples K of each class, or a range of numbers. In Meta-Dataset's sampling a range
            from 1 to the most examples that a class counts for when the size of the support set is drawn.
        queries: Number of query examples Q of each class, or a range of numbers; "rest" takes all examples of a class
            that are not in the support set. In Meta-Dataset's sampling the largest number; if classes have few
            examples, all of them have as many queries as half of the smallest class.
        sampling: "plain" (omitted from the JSON) or "meta-dataset".
        max_support: Largest number of support examples of an episode in Meta-Dataset's sampling. None (omitted from the
            JSON) takes the paper's 500.
    """

    ways: Count = 1
    shots: Count
    queries: Annotated[Number | Range | Rest, Discriminator(_form), BeforeValidator(_read_queries)]
    sampling: Literal["plain", "meta-dataset"] = "plain"
    max_support: int | None = Field(default=None, ge=1)

    @classmethod
    def meta_dataset(
        cls,
        *,
        ways: int | tuple[int, int] = (5, 50),
        shots: tuple[int, int] = (1, 100),
        queries: int = 10,
        max_support: int | None = None,
    ) -> "EpisodeSpec":
        """Meta-Dataset's sampling, with the paper's numbers unless told otherwise."""
        return cls(ways=ways, shots=shots, queries=queries, sampling="meta-dataset", max_support=max_support)

    @model_validator(mode="after")
    def _numbers_suit_the_sampling(self) -> "EpisodeSpec":
        if self.sampling == "plain":
            if self.max_support is not None:
                raise ValueError(
                    f"max_support: a limit of Meta-Dataset's sampling, which sampling='meta-dataset' asks for (got "
                    f"{self.max_support}); plain episodes have ways * shots support examples"
                )
            return self
        if isinstance(self.shots, int) or self.shots[0] != 1:
            raise ValueError(
                "shots: Meta-Dataset's sampling draws them for each class, from 1 on; give the range of what a class "
                f"counts for, 1..100 in the paper (got {_short(self.shots)})"
            )
        if not isinstance(self.queries, int):
            raise ValueError(
                "queries: Meta-Dataset's sampling takes as many of each class as the smallest allows; give the most as "
                f"one number, 10 in the paper (got {_short(self.queries)})"
            )
        if self.most_support < self.most_ways:
            raise ValueError(
                f"max_support: {self.most_support} support examples are too few for {self.most_ways} ways, which need "
                "one of each class"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_before_ranges(self, write: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        # What a plain episode's JSON was before there were other samplings, it still is.
        tree: dict[str, Any] = write(self)
        if info.context != EVERY_FIELD:
            for name in ("sampling", "max_support"):
                if tree.get(name) == type(self).model_fields[name].default:
                    tree.pop(name, None)
        return tree

    @property
    def is_fixed(self) -> bool:
        """Whether all episodes have the same numbers of classes and examples."""
        plain = self.sampling == "plain"
        return plain and all(isinstance(count, int) for count in (self.ways, self.shots, self.queries))

    @property
    def fixed_ways(self) -> int | None:
        """Number of ways, if it is the same for all episodes; otherwise None."""
        return self.ways if isinstance(self.ways, int) else None

    @property
    def fewest_ways(self) -> int:
        """Smallest number of ways of an episode."""
        return _ends_of(self.ways)[0]

    @property
    def most_ways(self) -> int:
        """Largest number of ways of an episode."""
        return _ends_of(self.ways)[1]

    @property
    def fewest_shots(self) -> int:
        """Smallest number of shots of a class."""
        return _ends_of(self.shots)[0]

    @property
    def most_shots(self) -> int:
        """Largest number of shots of a class.

        In Meta-Dataset's sampling it is what one class counts for at most; a large class may have more shots.
        """
        return _ends_of(self.shots)[1]

    @property
    def fewest_queries(self) -> int:
        """Smallest number of queries of a class; at least one with "rest" and in Meta-Dataset's sampling."""
        return 1 if self.queries == "rest" or self.sampling != "plain" else _ends_of(self.queries)[0]

    @property
    def most_queries(self) -> int | None:
        """Largest number of queries of a class; None if it depends on the number of examples."""
        return None if self.queries == "rest" else _ends_of(self.queries)[1]

    @property
    def most_support(self) -> int:
        """Largest number of support examples of an episode."""
        if self.sampling == "plain":
            return self.most_ways * self.most_shots
        return MOST_SUPPORT if self.max_support is None else self.max_support

    def chance(self, classes: int | None = None) -> float:
        """Accuracy of guessing a class at random: the mean of 1/N over all numbers of ways N.

        Args:
            classes: Number of classes of the split, which bounds the ways in Meta-Dataset's sampling; None if it is
                unknown.
        """
        low, high = _ends_of(self.ways)
        if classes is not None and self.sampling != "plain":
            high = max(low, min(high, classes))
        return sum(1 / ways for ways in range(low, high + 1)) / (high + 1 - low)

    @property
    def ways_in_words(self) -> str:
        """Description of the ways, as in "5 ways" and "5 to 20 ways"."""
        return _in_words(self.ways, "way", "ways")

    @property
    def in_short(self) -> str:
        """Description of ways and shots, as in "5-way 1-shot" and "5 to 20 ways, 1 to 5 shots"."""
        if self.fixed_ways is not None and isinstance(self.shots, int):
            return f"{'' if self.ways == 1 else f'{self.ways}-way '}{self.shots_in_short}"
        return ", ".join([*([] if self.ways == 1 else [self.ways_in_words]), self.shots_in_short])

    @property
    def shots_in_short(self) -> str:
        """Description of the shots, as in "1-shot", "1 to 5 shots" and "at most 500 shots in all"."""
        if self.sampling == "meta-dataset":
            return f"at most {self.most_support} shots in all"
        if isinstance(self.shots, int) and self.fixed_ways is not None:
            return f"{self.shots}-shot"
        return _in_words(self.shots, "shot", "shots")

    @property
    def largest(self) -> Sizes:
        """Sizes of the largest plain episode: the most that a source must yield."""
        return Sizes(self.most_ways, self.most_shots, self.most_queries)

    @property
    def smallest(self) -> Sizes:
        """Sizes of the smallest episode."""
        queries = None if self.queries == "rest" else self.fewest_queries
        return Sizes(self.fewest_ways, self.fewest_shots, queries)

    def draw(self, draws: Draws) -> Sizes:
        """Draw the sizes of one plain episode: ways, shots and queries, in this order.

        Sizes that are not ranges draw nothing.

        Raises:
            InputError: If the spec asks for Meta-Dataset's sampling, whose sizes depend on the classes.
        """
        if self.sampling != "plain":
            raise InputError("Meta-Dataset's sampling is of stores of classes; this source takes numbers and ranges")
        ways, shots = (draws.between(*_ends_of(count)) for count in (self.ways, self.shots))
        return Sizes(ways, shots, None if self.queries == "rest" else draws.between(*_ends_of(self.queries)))

    def __str__(self) -> str:
        queries = "all other examples as queries"
        if self.queries != "rest":
            a_class = "" if self.most_ways == 1 else " a class"
            queries = _in_words(self.queries, "query", "queries") + a_class
        if self.sampling == "meta-dataset":
            return f"Meta-Dataset's sampling: {self.in_short}, up to {queries}"
        return f"{self.in_short}, {queries}"


def _ends_of(count: int | tuple[int, int] | str) -> tuple[int, int]:
    assert not isinstance(count, str), count
    return (count, count) if isinstance(count, int) else count


def _in_words(count: int | tuple[int, int] | str, one: str, many: str) -> str:
    low, high = _ends_of(count)
    return counted(low, one, many) if low == high else f"{low} to {high} {many}"


def _short(count: int | tuple[int, int] | str) -> str:
    return f"{count[0]}..{count[1]}" if isinstance(count, tuple) else str(count)
