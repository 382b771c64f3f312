"""`metaray registry`: list, show, promote."""

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(help="Registered learners.", no_args_is_help=True)

TrackingUri = Annotated[str | None, typer.Option(help="MLflow; default $MLFLOW_TRACKING_URI, else ./mlflow.db")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


def _ready(flag: str | None) -> str:
    from metaray.tracking.server import prepare, tracking_uri

    uri = tracking_uri(flag)
    prepare(uri)
    return uri


@app.command("list")
def list_models(tracking_uri: TrackingUri = None, as_json: AsJson = False) -> None:
    """Every registered model, its versions and aliases."""
    from metaray.tracking import registry

    models = registry.list_models(_ready(tracking_uri))
    if as_json:
        rows = [{"name": m.name, "versions": [v.version for v in m.versions], "aliases": m.aliases} for m in models]
        print(json.dumps(rows, indent=2))
        return
    table = Table("name", "versions", "aliases", "meta-test accuracy of the newest")
    for model in models:
        aliases = ", ".join(f"@{alias} -> {version}" for alias, version in sorted(model.aliases.items()))
        newest = model.versions[0].tags.get("meta_test.accuracy", "") if model.versions else ""
        table.add_row(model.name, str(len(model.versions)), aliases, newest)
    Console().print(table)


@app.command()
def show(name: str, tracking_uri: TrackingUri = None, as_json: AsJson = False) -> None:
    """One model: its versions, with tags and aliases."""
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


@app.command()
def promote(
    name: str,
    version: int,
    alias: Annotated[str, typer.Option(help="to point at this version")] = "champion",
    tracking_uri: TrackingUri = None,
) -> None:
    """Point an alias at a version."""
    from metaray.tracking import registry

    moved = registry.set_alias(_ready(tracking_uri), name, version, alias)
    print(f"{moved.uri} is now models:/{name}@{alias}")
