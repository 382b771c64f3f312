"""Searches as recipes and command lines describe them."""

from collections.abc import Mapping, Sequence
from typing import Any

from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.experiment.overrides import override
from metaray.experiment.recipes import call_recipe
from metaray.tuning.search import Search
from metaray.tuning.space import parse_space


def describe(recipe: str, space: Sequence[str], settings: Sequence[str], changes: Mapping[str, Any]) -> Search:
    """The search that a recipe, `--search` and `--set` options and other fields make up.

    Args:
        recipe: of an `Experiment`, or of a `Search`.
        space: `dotted.key=domain`; they replace those of a recipe's `Search` under the same key.
        settings: `dotted.key=value` for the experiment of all trials.
        changes: fields of `Search`.

    Raises:
        InputError: if something of it is wrong.
    """
    found, place = call_recipe(recipe)
    if not isinstance(found, Search | Experiment):
        raise _neither(recipe, found, place)
    base = found if isinstance(found, Search) else None
    (base.experiment if base else found).require_faithful()  # type: ignore[union-attr]
    experiment = override(base.experiment if base else found, settings)  # type: ignore[arg-type]
    searched = dict(base.space if base else {}) | parse_space(space)
    both = [text.partition("=")[0] for text in settings if text.partition("=")[0] in searched]
    if both:
        raise InputError(f"{both[0]} is given by --set and searched by --search: leave one out")
    kept = {name: getattr(base, name) for name in Search.model_fields} if base else {}
    fields = kept | dict(changes) | {"experiment": experiment, "space": searched}
    if fields.get("searcher") == "pbt" and "scheduler" not in changes:
        fields["scheduler"] = "none"
    return Search.parse(fields, where=f"search of {recipe}")


def resolved(recipe: str, settings: Sequence[str]) -> tuple[Experiment, Search | None]:
    """The experiment of a recipe with some fields changed, and the search that it is part of, if it is of one.

    Args:
        recipe: of an `Experiment`, or of a `Search`.
        settings: `dotted.key=value`.

    Raises:
        InputError: if something of it is wrong.
    """
    found, place = call_recipe(recipe)
    if not isinstance(found, Search | Experiment):
        raise _neither(recipe, found, place)
    experiment = found.experiment if isinstance(found, Search) else found
    experiment.require_faithful()
    experiment = override(experiment, settings)
    if not isinstance(found, Search):
        return experiment, None
    fields = {name: getattr(found, name) for name in Search.model_fields}
    return experiment, Search.parse(fields | {"experiment": experiment}, where=f"search of {recipe}")


def _neither(recipe: str, found: object, place: str) -> InputError:
    return InputError(f"recipe {recipe!r} returned {type(found).__name__}, neither an Experiment nor a Search{place}")
