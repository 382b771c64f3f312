"""What `execution="auto"` means: a pure function of what a run is, so that all that take part decide alike.

Figures, in milliseconds a meta-gradient (H200, Conv4 of 64 channels with max-pool, 5-way 1-shot, 15 queries, meta-batch
of 32 in one chunk, MAML in second order, float32): batched 73 with 1 inner step and 178 with 5; the same replayed as a
CUDA graph 54 and 115, and with convolutions written out as products 35 and 64. Of other models and algorithms nothing
was measured there: they stay batched.

On a CPU (two cores, one thread, processor time, the same MAML of one episode) compiled takes 0.75 to 0.83 of the time
of "each" (docs/performance.md), but to compile takes one or two minutes: whoever trains long asks for it.
"""

from typing import Literal

Kind = Literal["each", "batched", "compiled", "graph"]
Convolutions = Literal["plain", "grouped", "unfolded"]

GRAPH_MODELS = frozenset({"conv4", "resnet12"})
GRAPH_ALGORITHMS = frozenset({"maml", "fomaml", "meta_sgd", "boil"})


def automatic(device_type: str, model: str, algorithm: str) -> Kind:
    """The kind of execution on a type of device, by the kinds of model and algorithm.

    Args:
        device_type: "cpu" or "cuda".
        model: Kind of the model.
        algorithm: Kind of the algorithm.
    """
    if device_type == "cuda" and model in GRAPH_MODELS and algorithm in GRAPH_ALGORITHMS:
        return "graph"
    return "batched"


def convolutions_of(device_type: str, kind: Kind, chunk_size: int) -> Convolutions:
    """How convolutions of a chunk are computed, whose weights differ by episode; see `metaray.records.execution`.

    Args:
        device_type: "cpu" or "cuda".
        kind: Kind of execution.
        chunk_size: Episodes that are mapped over at once.
    """
    if kind == "each" or chunk_size == 1:
        return "plain"
    return "unfolded" if device_type == "cuda" else "grouped"
