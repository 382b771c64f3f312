"""`metaray data embed`."""

from typing import Annotated, Any, Literal

import typer

from metaray.cli.imports import import_from_here
from metaray.cli.options import Address
from metaray.cli.store_options import Out, import_progress
from metaray.errors import InputError


def embed(
    store: Annotated[str, typer.Argument(metavar="STORE", help="A store file or its URI, of the encoder's inputs.")],
    encoder: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="The folder of a pretrained encoder, with config.json and model.safetensors, or a URI of it.",
        ),
    ],
    out: Out,
    sha256: Annotated[
        str, typer.Option(metavar="HEX", help="SHA-256 that the weights must have; any is accepted if left out.")
    ] = "",
    pooling: Annotated[
        Literal["mean", "cls", "fc"] | None,
        typer.Option(
            metavar="mean|cls|fc",
            help="How the vectors of an example's tokens or patches become one: their mean, the first, or what a "
            "residual network's last layer makes of the mean; by default what is usual for the encoder.",
        ),
    ] = None,
    normalized: Annotated[bool, typer.Option(help="Bring each vector to length 1.")] = True,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Number of examples encoded at once.")] = 64,
    module: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:NAME",
            help="A class or function of your own that builds the encoder, for weights of a kind that is not known.",
        ),
    ] = None,
    vector_size: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Length of the vector that --module makes of one example.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, metavar="N", help="Number of actors on Ray; 0 encodes in this process, without Ray.")
    ] = 0,
    cpus_per_worker: Annotated[
        float, typer.Option(min=0.01, metavar="N", help="Number of CPUs that each of them reserves.")
    ] = 1.0,
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="Device to compute on: auto (a GPU where there is one), cpu or cuda.")
    ] = "auto",
    address: Address = None,
    trust: Annotated[
        list[str] | None,
        typer.Option(metavar="PACKAGE", help="A package that the store's preprocessing may come from."),
    ] = None,
) -> None:
    """Run a frozen encoder once over a store, and write a store of its vectors; a call that was stopped goes on."""
    from metaray.api.embed import embed as embed_store
    from metaray.models.encoders.encoder import Encoder
    from metaray.training.placement import Placement, Workers

    placement = Placement(Workers(workers, workers), cpus_per_worker=cpus_per_worker, device=device, address=address)
    described: dict[str, Any] = {"path": encoder, "sha256": sha256, "normalized": normalized}
    if pooling is not None:
        described["pooling"] = pooling
    if (module is None) != (vector_size is None):
        raise InputError("--module and --vector-size go together")
    if module is not None:
        import_from_here()
        described["architecture"] = {"kind": "module", "path": module, "width": vector_size}
    model = Encoder.parse(described, where="encoder")
    with import_progress() as (progress, _):
        report = embed_store(
            store, model, out, placement, batch_size=batch_size, trust=tuple(trust or ()), progress=progress
        )
    if report.before:
        print(f"went on after {report.before} examples, which were done")
    print(f"wrote {report.path}: {report.examples} vectors of {report.size} numbers")
    print(f"encoder sha256: {model.sha256}")
