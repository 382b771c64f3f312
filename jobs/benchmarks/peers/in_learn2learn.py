"""learn2learn (Arnold et al., arXiv:2008.12284): a module that is cloned and adapted, and the fused taskset."""

from collections.abc import Callable

import learn2learn as l2l
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from jobs.benchmarks.peers.learner import Backward, Conv4, Episode, Refused, TorchLearner, by_backward, cross_entropy
from jobs.benchmarks.peers.wire import Arrays, Method

PACKAGES = ("learn2learn", "torch")


def build(method: Method, arrays: Arrays) -> TorchLearner:
    """What computes it.

    Raises:
        Refused: for R2D2.
    """
    if method.kind not in MAKERS:
        raise Refused(f"learn2learn has no {method.kind}")
    return TorchLearner(MAKERS[method.kind], method, arrays)


def maml(network: Conv4, method: Method) -> Backward:
    """MAML and FOMAML."""
    learner = l2l.algorithms.MAML(network, lr=method.rate, first_order=method.kind == "fomaml")

    def loss(episode: Episode) -> Tensor:
        fast = learner.clone()
        for _ in range(method.steps):
            fast.adapt(cross_entropy(fast(episode.support_x), episode.support_y))
        return cross_entropy(fast(episode.query_x), episode.query_y)

    return by_backward(loss)


def anil(network: Conv4, method: Method) -> Backward:
    """The head alone is cloned; the features are computed once."""
    learner = l2l.algorithms.MAML(network.head, lr=method.rate)

    def loss(episode: Episode) -> Tensor:
        head, features = learner.clone(), network.body(episode.support_x)
        for _ in range(method.steps):
            head.adapt(cross_entropy(head(features), episode.support_y))
        return cross_entropy(head(network.body(episode.query_x)), episode.query_y)

    return by_backward(loss)


def protonet(network: Conv4, method: Method) -> Backward:
    """Its classifier of prototypes, on support and query that are embedded together."""
    classifier = l2l.nn.PrototypicalClassifier()

    def loss(episode: Episode) -> Tensor:
        embedded = network(torch.cat([episode.support_x, episode.query_x])).float()
        shots, queries = embedded.split([len(episode.support_y), len(episode.query_y)])
        classifier.fit_(shots, episode.support_y)
        return cross_entropy(classifier(queries), episode.query_y)

    return by_backward(loss)


MAKERS: dict[str, Callable[[Conv4, Method], Backward]] = {
    "maml": maml,
    "fomaml": maml,
    "anil": anil,
    "protonet": protonet,
}


def taskset(arrays: Arrays, ways: int, per_class: int) -> Callable[[], object]:
    """Samples one task at a call, by the fused transforms.

    Args:
        arrays: "images" [examples, *feature] and "labels" [examples].
        ways: classes of a task.
        per_class: examples of each.
    """
    images, labels = (torch.from_numpy(arrays[name]) for name in ("images", "labels"))
    dataset = l2l.data.MetaDataset(TensorDataset(images, labels))
    transforms = l2l.data.transforms
    chosen = [
        transforms.FusedNWaysKShots(dataset, n=ways, k=per_class),
        transforms.LoadData(dataset),
        transforms.RemapLabels(dataset),
        transforms.ConsecutiveLabels(dataset),
    ]
    found: Callable[[], object] = l2l.data.Taskset(dataset, chosen).sample
    return found
