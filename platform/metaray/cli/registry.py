"""`metaray registry`: list, show, promote."""

import json
from collections.abc import Mapping
from typing import Annotated

import typer

from metaray.cli.help import Command, Group
from metaray.cli.options import AsJson, TrackingUri
from metaray.cli.table import print_table

app = typer.Typer(cls=Group, help="List, show and promote registered learners.")

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of a registered model, as `metaray registry list` prints it.")
]


def _ready(flag: str | None) -> str:
    from metaray.tracking.server import prepare, tracking_uri

    uri = tracking_uri(flag)
    prepare(uri)
    return uri


@app.command("list", cls=Command)
def list_models(tracking_uri: TrackingUri = None, as_json: AsJson = False) -> None:
    """List every registered model, its versions and aliases."""
    from metaray.tracking import registry

    models = registry.list_models(_ready(tracking_uri))
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
    """As in "accuracy 0.9815 +- 0.0019 (1000 episodes)"; empty where the tags do not say."""
    found = [f"{key.removeprefix('meta_test.')} {value}" for key, value in tags.items() if key.startswith("meta_test.")]
    return ", ".join(found)


@app.command(cls=Command)
def show(name: Name, tracking_uri: TrackingUri = None, as_json: AsJson = False) -> None:
    """Show the versions of one model, with their tags and aliases."""
    from metaray.tracking import registry

    model = registry.show(_ready(tracking_uri), name)
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

    uri = _ready(tracking_uri)
    if alias == registry.CHAMPION:
        moved = succession.crown_by_hand(uri, name, version)
    else:
        moved = registry.set_alias(uri, name, version, alias)
    if as_json:
        print(json.dumps({"name": name, "version": moved.version, "aliases": moved.aliases}, indent=2))
        return
    print(f"{moved.uri} is now models:/{name}@{alias}")
