"""What learns each task from its support set alone: baselines for tables, which know nothing of other tasks.

Runs report the nearest neighbour, where the preprocessing says how inputs are compared, and those that it or their
source names (`Preprocessing.baselines`, `Source.baselines`), and what `metaray.training.rivals` finds besides. They are
judged, never trained: `BASELINES` is the explicit dict of them.
"""

from typing import ClassVar

import torch
from torch import Tensor

from metaray.algorithms.class_means import ClassMeans
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.per_task import PerTask, vectors
from metaray.algorithms.item_means import GlobalMean, ItemMean, ItemMeanAndOffset, ItemMeanAndShrunkOffset
from metaray.algorithms.nearest_neighbor import NearestNeighbor
from metaray.data.preprocessing import Preprocessing
from metaray.data.source import Source
from metaray.episodes.inputs import Inputs
from metaray.episodes.tensors import Examples
from metaray.tasks.baselines import FROZEN, NEAREST, TF_IDF

PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0, 10000.0)
"""Penalties of ridge regression: from nearly none to nearly the mean."""
LOGISTIC_PENALTY, LOGISTIC_STEPS = 1.0, 20


class SupportMean(PerTask):
    """The mean of the support's targets, whatever the input."""

    kind: ClassVar[str] = "support_mean"

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """The mean of the support targets."""
        return {"mean": context.task.aims(support.y, context.ways, context.loss_dtype).mean(dim=0)}

    def predict(self, meta: Tensors, adapted: Tensors, x: Inputs, context: Context) -> Tensor:
        """Predict that mean for each input."""
        rows = _vectors(x, context)
        return adapted["mean"].expand(len(rows), -1) + rows.new_zeros(()).to(context.loss_dtype)


class Ridge(PerTask):
    """Ridge regression on the support set, with an intercept that is not penalised.

    Its penalty is the one of `PENALTIES` with the least squared error when each support example in turn is left out,
    which for a linear smoother y_hat = H y is the residual over 1 - H_ii (Golub, Heath and Wahba, 1979).
    """

    kind: ClassVar[str] = "ridge"

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """The weights and the intercept, in float64."""
        x = _vectors(support.x, context)
        y = context.task.aims(support.y, context.ways, torch.float64)
        middle, mean = x.mean(dim=0), y.mean(dim=0)
        centred, residual = x - middle, y - mean
        gram = centred @ centred.T
        eye = torch.eye(len(x), dtype=x.dtype, device=x.device)
        found, errors = [], []
        for penalty in PENALTIES:
            inverse = torch.linalg.inv(gram + penalty * eye)
            smoother = gram @ inverse + 1 / len(x)
            left_out = (y - smoother @ y) / (1 - smoother.diagonal()).clamp_min(1e-12)[:, None]
            found.append(centred.T @ (inverse @ residual))
            errors.append(left_out.square().sum())
        best = torch.nn.functional.one_hot(torch.stack(errors).argmin(), len(PENALTIES)).to(x.dtype)
        return {"weights": torch.einsum("p,pdk->dk", best, torch.stack(found)), "middle": middle, "mean": mean}

    def predict(self, meta: Tensors, adapted: Tensors, x: Inputs, context: Context) -> Tensor:
        """Predict by the fitted linear function."""
        values = (_vectors(x, context) - adapted["middle"]) @ adapted["weights"] + adapted["mean"]
        return values.to(context.loss_dtype)


class Logistic(PerTask):
    """Logistic regression on the support set of a binary task, penalised by half the squared weights.

    Fitted by iteratively reweighted least squares in the span of the support, which has fewer examples than features.
    """

    kind: ClassVar[str] = "logistic"
    needs_classes: ClassVar[bool] = True

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """Fit the weights of the logistic regression, in float64."""
        x, y = _vectors(support.x, context), support.y.to(torch.float64)
        middle = x.mean(dim=0)
        centred = x - middle
        gram = centred @ centred.T + 1  # the intercept is a feature of 1
        margin, dual = torch.zeros_like(y), torch.zeros_like(y)
        for _ in range(LOGISTIC_STEPS):
            share = margin.sigmoid()
            weight = (share * (1 - share)).clamp_min(1e-6)
            aim = margin + (y - share) / weight
            dual = torch.linalg.solve(gram + torch.diag_embed(LOGISTIC_PENALTY / weight), aim)
            margin = gram @ dual
        return {"weights": centred.T @ dual, "middle": middle, "intercept": dual.sum()}

    def predict(self, meta: Tensors, adapted: Tensors, x: Inputs, context: Context) -> Tensor:
        """Two logits, of which that of the negative is 0."""
        margin = (_vectors(x, context) - adapted["middle"]) @ adapted["weights"] + adapted["intercept"]
        return torch.stack([torch.zeros_like(margin), margin], dim=1).to(context.loss_dtype)


BASELINES: dict[str, PerTask] = {
    NEAREST: NearestNeighbor(),
    ClassMeans.kind: ClassMeans(),
    FROZEN: ClassMeans(),
    TF_IDF: ClassMeans(),
    "support_mean": SupportMean(),
    "ridge": Ridge(),
    "logistic": Logistic(),
    "global_mean": GlobalMean(),
    "item_mean": ItemMean(),
    "item_mean_and_offset": ItemMeanAndOffset(),
    "item_mean_and_shrunk_offset": ItemMeanAndShrunkOffset(),
}


def baselines_of(source: Source, preprocessing: Preprocessing) -> tuple[str, ...]:
    """The names of what stands beside the scores of a source, the nearest neighbour first.

    There is one where the preprocessing, that of the source or of the learner at hand, says how inputs are compared.
    """
    nearest = () if preprocessing.compared is None else (NEAREST,)
    own = [name for name in preprocessing.baselines if source.task.has_classes or not BASELINES[name].needs_classes]
    return tuple(dict.fromkeys((*nearest, *own, *source.baselines)))


def _vectors(x: Inputs, context: Context) -> Tensor:
    """Vectors in float64."""
    return vectors(x, context).to(torch.float64)
