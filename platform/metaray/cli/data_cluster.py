"""`metaray data cluster`."""

from typing import Annotated

import typer

from metaray.cli.store_options import Out, import_progress

SHOWN = (2, 6, 10, 20)
"""Numbers of examples of which it is said how many clusters have them."""


def cluster(
    vectors: Annotated[
        str, typer.Argument(metavar="VECTORS", help="A store of vectors or its URI, as `metaray data embed` writes.")
    ],
    out: Out,
    clusters: Annotated[int, typer.Option(min=2, metavar="K", help="Number of clusters of each partition.")] = 500,
    partitions: Annotated[
        int, typer.Option(min=1, metavar="P", help="Number of partitions, all but the first of scaled vectors.")
    ] = 50,
    split: Annotated[str, typer.Option(metavar="NAME", help="The split scheme whose meta-train is clustered.")] = (
        "default"
    ),
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the scalings and the initial centres.")] = 0,
) -> None:
    """Cluster the examples of meta-train by their vectors; `CACTUs` takes the clusters for classes."""
    from metaray.data.partitions import cluster_store

    with import_progress() as (progress, _):
        report = cluster_store(
            vectors, out, clusters=clusters, partitions=partitions, split=split, seed=seed, progress=progress
        )
    print(f"wrote {report.path}: {partitions} partitions of {report.examples} examples into {clusters} clusters")
    shares = ", ".join(f"{100 * report.enough(count):.0f} % have {count}" for count in SHOWN)
    print(f"clusters with so many examples or more: {shares}")
