"""All sections there are, in the order in which they are run."""

from jobs.benchmarks.gpu.section import Section

BUDGETS_S = {
    "conformance": 50.0,
    "bits": 30.0,
    "execution": 240.0,
    "peers": 45.0,
    "training": 120.0,
    "costs": 45.0,
    "kernels": 15.0,
    "ray": 200.0,
}
"""By name, the wall time that each may take, the start of its process included."""
TRAIN_S = 80.0
"""Of which training itself takes so much; who asks for more of it gives the section more."""
DEFAULT = tuple(name for name in BUDGETS_S if name != "ray")


def load(name: str) -> Section:
    """A section; imports what it needs, and nothing that only others need and may not be there."""
    match name:
        case "conformance":
            from jobs.benchmarks.gpu import conformance

            return conformance.SECTION
        case "bits":
            from jobs.benchmarks.gpu import bits

            return bits.SECTION
        case "execution":
            from jobs.benchmarks.gpu import execution

            return execution.SECTION
        case "costs":
            from jobs.benchmarks.gpu import costs

            return costs.SECTION
        case "kernels":
            from jobs.benchmarks.gpu import kernels

            return kernels.SECTION
        case "peers":
            from jobs.benchmarks.gpu import peers

            return peers.SECTION
        case "training":
            from jobs.benchmarks.gpu import training

            return training.SECTION
        case "ray":
            from jobs.benchmarks.gpu import on_ray

            return on_ray.SECTION
    raise ValueError(f"there is no section {name!r}")
