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
    """Describe a search by a recipe, `--search` and `--set` options, and other fields of `Search`.

    Args:
        recipe: Recipe of an `Experiment`, or of a `Search`.
        space: Domains as `dotted.key=domain`; they replace those of a recipe's `Search` for the same keys.
        settings: Changes to the experiment of all trials, as `dotted.key=value`.
        changes: Other fields of `Search`.

    Raises:
        InputError: If any of these is invalid.
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
    """A search with some fields changed, or a new search on an experiment.

    Args:
        found: The search or the experiment.
        space: Domains by dotted key; they replace those of the search for the same keys.
        changes: Other fields of `Search`.
        where: Name of the search in messages.

    Raises:
        InputError: If the result is invalid.
    """
    base = found if isinstance(found, Search) else None
    kept = {name: getattr(base, name) for name in Search.model_fields} if base else {"experiment": found}
    fields = kept | dict(changes) | {"space": {**(base.space if base else {}), **space}}
    if fields.get("searcher") == "pbt" and "scheduler" not in changes:
        fields["scheduler"] = "none"
    return Search.parse(fields, where=where)


def resolved(recipe: str, settings: Sequence[str]) -> tuple[Experiment, Search | None]:
    """The experiment of a recipe with some fields changed, and the search it belongs to, if the recipe is a search.

    Args:
        recipe: Recipe of an `Experiment`, or of a `Search`.
        settings: Changes to the experiment, as `dotted.key=value`.

    Raises:
        InputError: If the recipe or a setting is invalid.
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
