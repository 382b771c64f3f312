"""`metaray data`: import, describe and export class stores."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from metaray.cli import data_cluster, data_embed, data_import
from metaray.cli.data_import import print_normalisations
from metaray.cli.data_table import count, describe_table, is_table
from metaray.cli.help import Command, Group
from metaray.cli.options import AsJson, Verify
from metaray.displays.table import print_table
from metaray.errors import InputError

if TYPE_CHECKING:
    from metaray.data.describe import Groups

SHOWN_GROUPS = 3

app = typer.Typer(cls=Group, help="Import, describe and export class stores and tables.")
app.add_typer(data_import.app, name="import")
app.command(cls=Command)(data_embed.embed)
app.command(cls=Command)(data_cluster.cluster)

Store = Annotated[
    str, typer.Argument(metavar="STORE", help="A store or table file or its URI, or 'glyphs' for the embedded one.")
]
Ways = Annotated[str, typer.Option(metavar="N", help="Number of classes in an episode, or a range such as 5..20.")]
Shots = Annotated[
    str,
    typer.Option(
        metavar="N", help="Number of support examples of each class (of a table: rows), or a range such as 1..5."
    ),
]
Queries = Annotated[
    str,
    typer.Option(
        metavar="N", help="Number of query examples of each class (rows), a range, or 'rest' for all that are left."
    ),
]
WithinGroups = Annotated[
    bool, typer.Option("--within-groups", help="Take the classes of an episode from one group, such as an alphabet.")
]


@app.command(cls=Command)
def describe(
    store: Store,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the split scheme to describe; by default all of them.")
    ] = None,
    rotations: Annotated[
        bool, typer.Option(help="Count images turned by 90, 180 and 270 degrees as classes of their own.")
    ] = False,
    ways: Ways = "5",
    shots: Shots = "1",
    queries: Queries = "5",
    within_groups: WithinGroups = False,
    gallery: Annotated[Path | None, typer.Option(metavar="FILE", help="PNG file to draw sample episodes to.")] = None,
    verify: Verify = False,
    as_json: AsJson = False,
) -> None:
    """Describe a store or a table: its classes or groups, splits and fingerprint, and how many episodes there are."""
    from metaray.data.describe import describe_store
    from metaray.data.episode_spec import EpisodeSpec
    from metaray.data.ragged import shape_text

    if store != "glyphs" and is_table(store):
        options = {"--split": split, "--rotations": rotations, "--within-groups": within_groups, "--gallery": gallery}
        if given := [name for name, value in options.items() if value]:
            raise InputError(f"{given[0]} is an option for class stores, and {store} is a table: leave it out")
        describe_table(store, shots, queries, verify=verify, as_json=as_json)
        return
    spec = EpisodeSpec.parse({"ways": ways, "shots": shots, "queries": queries}, where="episodes")
    description = describe_store(store, split, spec, rotations=rotations, within_groups=within_groups, verify=verify)
    if gallery is not None:
        from metaray.plots.task_pictures import draw_episodes

        draw_episodes(description.source, gallery, "meta-train", spec)
    if as_json:
        print(json.dumps(description.to_dict(), indent=2))
        return
    shape = shape_text(description.shape)
    print(f"{store}: {description.classes} classes, {description.examples} examples of shape {shape}")
    print(f"fingerprint: {description.fingerprint}")
    if description.value_range is not None:
        print("value range: {:g} to {:g}".format(*description.value_range))
    if description.resample is not None:
        print(f"images resized with: {description.resample}")
    where = " within a group" if within_groups else ""
    counted = f"distinct {spec.in_short} episodes{where}"
    if not spec.is_fixed:
        counted = f"distinct episodes{where} ({spec.in_short}), at least"
    rows = [(row.scheme, row.part, str(row.classes), row.sizes, count(row.episodes)) for row in description.rows]
    print_table(("split", "part", "classes", "examples a class", counted), rows)
    if description.groups is not None:
        _print_groups(description.groups)
    for note in description.notes:
        print(f"note: {note}")
    if store != "glyphs":  # which is normalised by no fields
        print_normalisations(description.normalisations)
    if gallery is not None:
        print(f"gallery: {gallery}")


@app.command(cls=Command)
def export(
    store: Store,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="New folder to write support/CLASS/ and query/CLASS/ into.")
    ],
    part: Annotated[
        Literal["meta-train", "meta-val", "meta-test"],
        typer.Option(metavar="PART", help="Meta-split whose classes to draw from: meta-train, meta-val or meta-test."),
    ] = "meta-test",
    split: Annotated[str, typer.Option(metavar="NAME", help="Name of the split scheme.")] = "default",
    ways: Ways = "5",
    shots: Shots = "1",
    queries: Queries = "5",
    within_groups: WithinGroups = False,
    seed: Annotated[int, typer.Option(min=0, max=2**64 - 1, metavar="N", help="Seed of the sequence of episodes.")] = 0,
    index: Annotated[
        int,
        typer.Option(min=0, max=2**63 - 1, metavar="N", help="Index of the episode to write in that sequence, from 0."),
    ] = 0,
) -> None:
    """Write one episode as folders of image files, for instance to try `metaray adapt` on."""
    from metaray.episodes.export import export_episode, source_named

    spec = {"ways": ways, "shots": shots, "queries": queries}
    export_episode(source_named(store, split, within_groups=within_groups), spec, part, seed, index, out)
    print(f"wrote {out}/support and {out}/query")


def _print_groups(groups: "Groups") -> None:
    print(f"groups: {groups.count}, of {groups.sizes} classes (fewest / median / most)")
    rows = [
        (
            row.scheme,
            row.part,
            str(len(row.groups)),
            row.sizes,
            ", ".join(row.groups[:SHOWN_GROUPS]) + _more(row.groups),
        )
        for row in groups.rows
    ]
    print_table(("split", "part", "groups", "classes a group", "names"), rows)
    for scheme, names in groups.across.items():
        if names:
            listed = ", ".join(names[:SHOWN_GROUPS]) + _more(names)
            print(f"split {scheme}: groups with classes in more than one part: {listed} ({len(names)} in all)")


def _more(names: Sequence[str]) -> str:
    return ", ..." if len(names) > SHOWN_GROUPS else ""
