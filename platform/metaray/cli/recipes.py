"""`metaray recipes` and `metaray show`: what can be trained here, and what training it takes."""

import json
import sys
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metaray.cli.amounts import duration_text, size_text, wrapped
from metaray.cli.keys import print_keys, terminal_width
from metaray.cli.options import SET_KEYS, AsJson
from metaray.displays.table import one_line
from metaray.errors import InputError, redacted

if TYPE_CHECKING:
    from metaray.api.recipe_files import RecipeFound
    from metaray.experiment.experiment import Experiment
    from metaray.training.arithmetic import Arithmetic
    from metaray.tuning.search import Search

NARROW = 32
"""Columns that a docstring needs beside a recipe's name; with fewer it stands below."""
MILLION = 10**6


def recipes(
    places: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PLACE",
            help="Folders and Python files to look in; by default jobs and the working directory.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the recipes in Python files, with what their docstrings say; none of their code runs."""
    from metaray.api.recipe_files import BY_DEFAULT, find_recipes

    found = find_recipes(places or [])
    for problem in found.unread:
        print(f"note: {problem}", file=sys.stderr)
    if as_json:
        print(json.dumps([one._asdict() for one in found.recipes], indent=2, ensure_ascii=False))
        return
    if not found.recipes:
        looked = ", ".join(places or BY_DEFAULT)
        print(f"no recipes in {looked}; `metaray init FOLDER` writes a project that has some", file=sys.stderr)
    for line in _listed(found.recipes, terminal_width()):
        print(line)


def _listed(found: "Iterable[RecipeFound]", width: int) -> Iterator[str]:
    rows = [(one_line(one.recipe), one_line(one.summary)) for one in found]
    room = max((len(recipe) for recipe, _ in rows), default=0) + 2
    for recipe, summary in rows:
        longest = max(map(len, summary.split()), default=0)
        if not summary:
            yield recipe
        elif max(longest, NARROW) <= width - room:
            yield from _wrapped(summary, width, recipe.ljust(room), " " * room)
        else:
            yield recipe
            yield from _wrapped(summary, width, "    ", "    ")


def _wrapped(text: str, width: int, begin: str, later: str) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=begin, subsequent_indent=later, break_on_hyphens=False)


def show(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="The experiment or the search: path/to/file.py:function that returns one, or the JSON file of an "
            "experiment.",
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help=f"Change a field of the recipe, by its dotted key. {SET_KEYS}"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a recipe comes to: data, episodes, parameters, memory, checks, and every key that can be set.

    Nothing is trained or written. What the checks refuse ends the command as it would end `metaray train`.
    """
    from metaray.training.arithmetic import arithmetic_of
    from metaray.training.checks.preflight import preflight
    from metaray.tuning.recipes import resolved

    experiment, search = resolved(recipe, settings or [])
    arithmetic, refusal = None, None
    doubts: tuple[str, ...] = ()
    try:
        doubts = preflight(experiment)
        arithmetic = arithmetic_of(experiment)
    except InputError as error:
        refusal = error
    if as_json:
        print(json.dumps(_tree(recipe, experiment, search, arithmetic, refusal, doubts), indent=2, ensure_ascii=False))
    else:
        for label, text in _facts(recipe, experiment, search, arithmetic):
            _say(label, text)
        if refusal is None:
            _say("checks", "passed, on the CPU")
        for doubt in doubts:
            _say("note", doubt)
        print("\nKeys and values, as --set takes them:\n")
        print_keys(experiment)
    if refusal is not None:
        raise refusal


def _say(label: str, text: str) -> None:
    print("\n".join(wrapped(f"{label}: {text}")))


def _facts(
    recipe: str, experiment: "Experiment", search: "Search | None", arithmetic: "Arithmetic | None"
) -> Iterator[tuple[str, str]]:
    """What is said of an experiment, by its label."""
    train, evaluation = experiment.episodes, experiment.evaluation
    yield "recipe", f"{recipe}, of experiment {experiment.name}"
    if search is not None:
        yield "search", _search(search)
    yield "source", _source(experiment, arithmetic)
    yield "learner", f"{experiment.algorithm.kind} on {experiment.model.kind}, {experiment.optimizer.kind} outside"
    yield "trained on", f"{train}"
    yield "judged on", experiment.protocol
    steps, size = experiment.num_steps, experiment.meta_batch_size
    yield "episodes", f"{steps * size} to train on, {steps} steps of {size}"
    every = f"every {evaluation.every} steps and at the end" if evaluation.every else "at the end"
    yield (
        "judging",
        f"{evaluation.val_episodes} episodes of meta-val {every}, then {evaluation.test_episodes} of meta-test",
    )
    if arithmetic is not None:
        yield from _amounts(arithmetic)


def _source(experiment: "Experiment", arithmetic: "Arithmetic | None") -> str:
    from metaray.experiment.overrides import flatten

    fields = flatten(experiment.source.model_dump(mode="json"))
    told = ", ".join(f"{key}={redacted(value)}" for key, value in fields.items())
    kind = experiment.source.kind + (f" ({told})" if told else "")
    if arithmetic is None:
        return kind
    if not any(arithmetic.classes.values()):
        amounts = {split: _about(count) for split, count in arithmetic.tasks.items()}
        each = ", ".join(f"{count} in {split}" for split, count in amounts.items())
        if len(set(amounts.values())) == 1:
            each = f"{amounts['meta-train']} tasks in each meta-split"
        return f"{kind}; {experiment.source.task}, {each}"
    counts = (
        f"{split} {count} classes, {_about(arithmetic.tasks[split])} tasks"
        for split, count in arithmetic.classes.items()
    )
    return f"{kind}; {'; '.join(counts)}"


def _search(search: "Search") -> str:
    space = ", ".join(f"{key}={domain.expression()}" for key, domain in search.space.items())
    by = f" stopped early by {search.scheduler}" if search.scheduler != "none" else ""
    return f"{search.population} trials by {search.searcher}{by} over {space}; of each, what follows"


def _amounts(arithmetic: "Arithmetic") -> Iterator[tuple[str, str]]:
    parts = ", ".join(f"{part} {count}" for part, count in arithmetic.parameters.items())
    frozen = f"; {arithmetic.frozen} numbers besides are saved, not trained" if arithmetic.frozen else ""
    yield "meta-parameters", f"{sum(arithmetic.parameters.values())} ({parts}){frozen}"
    yield "workers", _workers(arithmetic)
    yield "memory", _memory(arithmetic)
    yield "checkpoints", f"at most {size_text(arithmetic.checkpoint_bytes)} each, of which up to three are kept"
    whole = arithmetic.train_episodes * arithmetic.episode_s
    yield (
        "time",
        f"{1000 * arithmetic.episode_s:.3g} ms an episode on a CPU here, so {duration_text(whole)} of one core "
        "for all of them; judging comes on top",
    )


def _workers(arithmetic: "Arithmetic") -> str:
    """How many can take part on each type of device."""
    cpu, gpu = (arithmetic.most_workers[device] for device in ("cpu", "cuda"))
    remedy = "; more take part with most_workers=" if gpu < cpu else ""
    return f"at most {cpu}" if cpu == gpu else f"at most {cpu} on CPUs, {gpu} on GPUs{remedy and f'{remedy}{cpu}'}"


def _memory(arithmetic: "Arithmetic") -> str:
    """What a worker takes on each type of device."""
    each, besides = size_text(arithmetic.episode_bytes), "besides torch itself and the data"
    cpu, gpu = (arithmetic.chunk_sizes[device] for device in ("cpu", "cuda"))
    needs = {device: size_text(arithmetic.worker_bytes(device)) for device in arithmetic.chunk_sizes}
    if needs["cpu"] == needs["cuda"]:
        at_once = "an episode, one at a time" if cpu == 1 else f"each of {cpu} episodes at once"
        return f"about {needs['cpu']} a worker, with {each} for {at_once}; {besides}"
    at_once = "1 episode at a time" if cpu == 1 else f"{cpu} episodes at once"
    there = size_text(arithmetic.gpu_episode_bytes)
    return (
        f"about {needs['cpu']} a worker on a CPU ({at_once}), {needs['cuda']} on a GPU ({gpu} at once), with {each} "
        f"and {there} for each episode; {besides}"
    )


def _tree(
    recipe: str,
    experiment: "Experiment",
    search: "Search | None",
    arithmetic: "Arithmetic | None",
    refusal: InputError | None,
    doubts: tuple[str, ...],
) -> dict[str, Any]:
    """The same for JSON."""
    from metaray.experiment.keys import keys_of

    amounts = None if arithmetic is None else asdict(arithmetic)
    if amounts is not None and arithmetic is not None:
        amounts["worker_bytes"] = {device: arithmetic.worker_bytes(device) for device in arithmetic.chunk_sizes}
    return {
        "recipe": recipe,
        "experiment": experiment.model_dump(mode="json"),
        "search": None if search is None else search.model_dump(mode="json", exclude={"experiment"}),
        "protocol": experiment.protocol,
        "arithmetic": amounts,
        "checks": {
            "passed": refusal is None,
            "refusal": None if refusal is None else redacted(str(refusal)),
            "notes": doubts,
        },
        "keys": [key._asdict() for key in keys_of(experiment)],
    }


def _about(count: int) -> str:
    return str(count) if count < MILLION else f"some 10^{len(str(count)) - 1}"
