"""Searches as recipes and command lines describe them."""

from collections.abc import Mapping, Sequence
from typing import Any

from metaray.config import replace
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.experiment.overrides import override
from metaray.experiment.recipes import call_recipe
from metaray.tuning.search import Search
from metaray.tuning.space import Domain, parse_space


def describe(recipe: str, space: Sequence[str], settings: Sequence[str], changes: Mapping[str, Any]) -> Search:
    """The search that a recipe, `--search` and `--set` options and other fields make up.

    Args:
        recipe: Recipe of an `Experiment`, or of a `Search`.
        space: `dotted.key=domain`; they replace those of a recipe's `Search` under the same key.
        settings: `dotted.key=value` for the experiment of all trials.
        changes: Fields of `Search`.

    Raises:
        InputError: If something of it is wrong.
    """
    found, place = call_recipe(recipe)
    if not isinstance(found, Search | Experiment):
        raise _neither(recipe, found, place)
    base = found.experiment if isinstance(found, Search) else found
    base.require_faithful()
    experiment = override(base, settings)
    searched = parse_space(space)
    known = {**found.space, **searched} if isinstance(found, Search) else searched
    both = [text.partition("=")[0] for text in settings if text.partition("=")[0] in known]
    if both:
        raise InputError(f"{both[0]} is given by --set and searched by --search: leave one out")
    changed = replace(found, experiment=experiment) if isinstance(found, Search) else experiment
    return search_of(changed, searched, changes, where=f"search of {recipe}")


def search_of(
    found: Search | Experiment, space: Mapping[str, Domain | str], changes: Mapping[str, Any], *, where: str = "search"
) -> Search:
    """A search with some fields changed, or one of an experiment.

    Args:
        found: The search, or the experiment.
        space: Domains by dotted key; they replace those of the search under the same key.
        changes: Fields of `Search`.
        where: Name for the search in errors.

    Raises:
        InputError: If something of it is wrong.
    """
    base = found if isinstance(found, Search) else None
    kept = {name: getattr(base, name) for name in Search.model_fields} if base else {"experiment": found}
    fields = kept | dict(changes) | {"space": {**(base.space if base else {}), **space}}
    if fields.get("searcher") == "pbt" and "scheduler" not in changes:
        fields["scheduler"] = "none"
    return Search.parse(fields, where=where)


def resolved(recipe: str, settings: Sequence[str]) -> tuple[Experiment, Search | None]:
    """The experiment of a recipe with some fields changed, and the search that it is part of, if it is of one.

    Args:
        recipe: Recipe of an `Experiment`, or of a `Search`.
        settings: `dotted.key=value`.

    Raises:
        InputError: If something of it is wrong.
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
