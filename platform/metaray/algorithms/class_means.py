"""Class means of what the inputs are, without any training: what a frozen encoder must be surpassed at."""

from typing import ClassVar

from torch import Tensor
from torch.nn.functional import normalize

from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.head import class_means, class_sums, means_of
from metaray.algorithms.families.per_task import PerTask, vectors
from metaray.episodes.inputs import Inputs
from metaray.episodes.tensors import Examples


class ClassMeans(PerTask):
    """Classify by the direction of the nearest class mean.

    A baseline that is never trained: of vectors that a pretrained encoder made it is that encoder, frozen, with nothing
    behind it.

        c_k = mean of x / |x| over the support examples of class k
        p(y = k | x) = softmax_k( -| x / |x| - c_k / |c_k| |^2 ), of which the greatest is that with the greatest cosine
    """

    kind: ClassVar[str] = "class_means"
    needs_classes: ClassVar[bool] = True

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """The means' directions [N, numbers]."""
        return {"means": normalize(class_means(_directions(support.x, context), support.y, context), dim=1)}

    def summary(self, meta: Tensors, support: Examples, context: Context, statistics: Tensors) -> Tensors | None:
        """The sum of the directions of each class, and the number of its examples."""
        return class_sums(_directions(support.x, context), support.y, context)

    def adapt_to(self, meta: Tensors, summary: Tensors, context: Context) -> Tensors:
        """The directions of the class means."""
        return {"means": normalize(means_of(summary, context), dim=1)}

    def predict(self, meta: Tensors, adapted: Tensors, x: Inputs, context: Context) -> Tensor:
        """Minus the squared distances on the sphere."""
        return 2 * (_directions(x, context) @ adapted["means"].T) - 2


def _directions(x: Inputs, context: Context) -> Tensor:
    """[n, numbers] at length one, as losses are computed."""
    return normalize(vectors(x, context).to(context.loss_dtype), dim=1)
