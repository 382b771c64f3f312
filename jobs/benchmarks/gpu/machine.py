"""What a record was made on."""

import os
from importlib.metadata import PackageNotFoundError, version

import torch

from jobs.benchmarks.gpu.record import Values
from metaray.records.environment import environment
from metaray.records.provenance import provenance


def machine(device: torch.device) -> Values:
    """The card, the processor, the libraries and the commit."""
    found = environment(device)
    tags = provenance()
    known: Values = {"device": found.pop("gpu", found["cpu"]), "cores": os.cpu_count()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        known |= {
            "memory GiB": properties.total_memory / 2**30,
            "multiprocessors": properties.multi_processor_count,
            "compute capability": f"{properties.major}.{properties.minor}",
        }
    libraries = {name: found[name] for name in ("cpu", "python", "torch", "cuda", "cudnn", "numpy") if name in found}
    others = {name: at for name in ("jax", "ray") if (at := _version(name)) is not None}
    return {**known, **libraries, **others, "commit": tags.get("git.commit", "unknown")[:12]}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
