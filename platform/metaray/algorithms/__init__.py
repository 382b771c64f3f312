"""Meta-learning algorithms, one file each. `ALGORITHMS` is the explicit dict of them."""

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.maml import MAML
from metaray.algorithms.nearest_neighbor import NearestNeighbor
from metaray.algorithms.protonet import ProtoNet

ALGORITHMS: dict[str, type[Algorithm]] = {
    "maml": MAML,
    "protonet": ProtoNet,
    "nearest_neighbor": NearestNeighbor,
}

__all__ = ["ALGORITHMS", "MAML", "Algorithm", "NearestNeighbor", "ProtoNet"]
