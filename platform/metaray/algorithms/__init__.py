"""Meta-learning algorithms, one file each. `ALGORITHMS` is the explicit dict of them."""

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.anil import ANIL
from metaray.algorithms.baseline import Baseline
from metaray.algorithms.baselinepp import BaselinePP
from metaray.algorithms.boil import BOIL
from metaray.algorithms.cavia import CAVIA
from metaray.algorithms.cnp import CNP
from metaray.algorithms.families.inner_optimizers import InnerAdam, InnerMomentum, InnerOptimizer, InnerSGD
from metaray.algorithms.fomaml import FOMAML
from metaray.algorithms.imaml import IMAML
from metaray.algorithms.learned_optimizer import LearnedOptimizer
from metaray.algorithms.maml import MAML
from metaray.algorithms.mamlpp import MAMLPP
from metaray.algorithms.matchingnet import MatchingNet
from metaray.algorithms.meta_sgd import MetaSGD
from metaray.algorithms.metaoptnet_ridge import MetaOptNetRidge
from metaray.algorithms.metaoptnet_svm import MetaOptNetSVM
from metaray.algorithms.nearest_neighbor import NearestNeighbor
from metaray.algorithms.proto_maml import ProtoMAML
from metaray.algorithms.protonet import ProtoNet
from metaray.algorithms.r2d2 import R2D2
from metaray.algorithms.relationnet import RelationNet
from metaray.algorithms.reptile import Reptile

ALGORITHMS: dict[str, type[Algorithm]] = {
    "maml": MAML,
    "fomaml": FOMAML,
    "reptile": Reptile,
    "anil": ANIL,
    "boil": BOIL,
    "meta_sgd": MetaSGD,
    "mamlpp": MAMLPP,
    "imaml": IMAML,
    "cavia": CAVIA,
    "proto_maml": ProtoMAML,
    "protonet": ProtoNet,
    "r2d2": R2D2,
    "metaoptnet_ridge": MetaOptNetRidge,
    "matchingnet": MatchingNet,
    "cnp": CNP,
    "learned_optimizer": LearnedOptimizer,
    "baseline": Baseline,
    "baselinepp": BaselinePP,
    "relationnet": RelationNet,
    "metaoptnet_svm": MetaOptNetSVM,
    "nearest_neighbor": NearestNeighbor,
}

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "ANIL",
    "BOIL",
    "Baseline",
    "BaselinePP",
    "CAVIA",
    "CNP",
    "FOMAML",
    "LearnedOptimizer",
    "IMAML",
    "InnerAdam",
    "InnerMomentum",
    "InnerOptimizer",
    "InnerSGD",
    "MAML",
    "MAMLPP",
    "MetaSGD",
    "NearestNeighbor",
    "ProtoMAML",
    "ProtoNet",
    "Reptile",
    "R2D2",
    "MetaOptNetRidge",
    "MatchingNet",
    "RelationNet",
    "MetaOptNetSVM",
]
