"""`metaray registry`: list, show, add, promote."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metaray.cli.help import Command, Group
from metaray.cli.imports import import_from_here
from metaray.cli.json_out import print_json
from metaray.cli.options import AsJson, LinkEncoder, Promote, RunStorage, TrackingUri, Trust, Verbose
from metaray.displays.table import print_table

if TYPE_CHECKING:
    from metaray.data.source import Source
    from metaray.experiment.experiment import Experiment
    from metaray.tracking.addition import Addition
    from metaray.tracking.server import MlflowServer

app = typer.Typer(cls=Group, help="List, show, add and promote registered learners.")

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of a registered model, as `metaray registry list` prints it.")
]


def _ready(flag: str | None) -> "MlflowServer":
    from metaray.tracking.server import MlflowServer

    server = MlflowServer.of(flag)
    server.prepare()
    return server


@app.command("list", cls=Command)
def list_models(tracking_uri: TrackingUri = None, as_json: AsJson = False) -> None:
    """List every registered model, its versions and aliases."""
    from metaray.tracking.registry_file import every_model
    from metaray.tracking.server import MlflowServer

    models = every_model(MlflowServer.of(tracking_uri))
    if as_json:
        rows = [{"name": m.name, "versions": [v.version for v in m.versions], "aliases": m.aliases} for m in models]
        print(json.dumps(rows, indent=2))
        return
    table: list[tuple[str, ...]] = []
    for model in models:
        aliases = ", ".join(f"@{alias} -> {version}" for alias, version in sorted(model.aliases.items()))
        newest = _quality(model.versions[0].tags) if model.versions else ""
        table.append((model.name, str(len(model.versions)), aliases, newest))
    print_table(("name", "versions", "aliases", "meta-test of the newest"), table)


def _quality(tags: Mapping[str, str]) -> str:
    """The score, as in "accuracy 0.9815 +- 0.0019 (1000 episodes)"; empty where the tags do not say."""
    found = [f"{key.removeprefix('meta_test.')} {value}" for key, value in tags.items() if key.startswith("meta_test.")]
    return ", ".join(found)


@app.command(cls=Command)
def show(name: Name, tracking_uri: TrackingUri = None, as_json: AsJson = False) -> None:
    """Show the versions of one model, with their tags and aliases."""
    from metaray.errors import unknown
    from metaray.tracking.registry_file import every_model
    from metaray.tracking.server import MlflowServer

    server = MlflowServer.of(tracking_uri)
    models = {model.name: model for model in every_model(server)}
    if name not in models:
        raise unknown(f"model at {server.shown}:", name, models)
    model = models[name]
    if as_json:
        rows = [
            {
                "version": v.version,
                "aliases": v.aliases,
                "run_id": v.run_id,
                "created": v.created.isoformat(),
                "tags": dict(v.tags),
            }
            for v in model.versions
        ]
        print(json.dumps(rows, indent=2))
        return
    for version in model.versions:
        aliases = "".join(f" @{alias}" for alias in version.aliases)
        print(f"{version.uri}{aliases}  created {version.created:%Y-%m-%d %H:%M} UTC  run {version.run_id}")
        for key, value in sorted(version.tags.items()):
            print(f"    {key}: {value}")


@app.command(cls=Command)
def add(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The folder of a learner, as `learner.save` writes it.")
    ],
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the registered model; a new one is made.")],
    source: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="What to evaluate it on: a store file, 'glyphs', or a recipe (file.py:function or JSON), whose source "
            "and numbers of episodes are taken. Without it the learner gets no alias.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="Name of the split scheme of a store file.")] = "default",
    promote: Promote = False,
    link_encoder: LinkEncoder = False,
    storage: RunStorage = "runs",
    tracking_uri: TrackingUri = None,
    trust: Trust = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Register a learner that no run of metaray trained; evaluated on a source, it may become champion."""
    from rich.console import Console

    import metaray
    from metaray.displays.run_display import JudgingDisplay
    from metaray.tracking.addition import add_learner

    if trust:
        import_from_here()
    learner, judged_on = metaray.load(folder, trust=trust or []), _source(source, split)
    with JudgingDisplay(Console(stderr=True)) as progress:
        added = add_learner(
            learner,
            name,
            source=judged_on,
            promote=promote,
            link_encoder=storage if link_encoder else None,
            tracking=tracking_uri,
            progress=progress,
        )
    if as_json:
        print_json(_added_tree(added))
    else:
        print(added)


def _source(text: str | None, split: str) -> "Source | Experiment | None":
    """What `--source` names."""
    if text is None:
        return None
    if text.endswith((".json", ".py")) or ".py:" in text:
        from metaray.experiment.recipes import load_recipe

        return load_recipe(text)
    from metaray.episodes.export import source_named

    return source_named(text, split)


def _added_tree(added: "Addition") -> dict[str, Any]:
    """How an addition ended, in the words of `train --json`."""
    version, scores, champion = added.version, added.scores, "champion" in added.version.aliases
    tree: dict[str, Any] = {"registered": version.uri, "champion": champion, "decision": added.decision.reason}
    tree |= {"protocol": added.protocol, "quality": added.quality}
    for key in ("meta_val", "meta_test", "before_adaptation", "nearest_neighbor"):
        estimate = None if scores is None else getattr(scores, key)
        tree[key] = None if estimate is None else estimate._asdict()
    if scores is not None:
        from metaray.records.result import in_short, plain

        tree |= {"baselines": in_short(scores.baselines), "further": plain(scores.further)}
        tree["over_groups"] = plain(scores.over_groups)
    return tree | {"tracking_uri": added.tracked.server.shown, "tracking_run": added.tracked.id}


@app.command(cls=Command)
def promote(
    name: Name,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="Number of one of its versions.")],
    alias: Annotated[
        str, typer.Option(metavar="ALIAS", help="The alias that is to point at this version.")
    ] = "champion",
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Point an alias at a version."""
    from metaray.tracking import champion as succession
    from metaray.tracking import registry

    server = _ready(tracking_uri)
    if alias == registry.CHAMPION:
        moved = succession.crown_by_hand(server, name, version)
    else:
        moved = registry.set_alias(server, name, version, alias)
    if as_json:
        print(json.dumps({"name": name, "version": moved.version, "aliases": moved.aliases}, indent=2))
        return
    print(f"{moved.uri} is now models:/{name}@{alias}")
