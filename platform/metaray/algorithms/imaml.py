"""MAML with implicit gradients."""

from collections.abc import Callable
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from metaray.algorithms.algorithm import Algorithm, MetaGradient, Outcome, by_episode
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.families.adapts import EVERYTHING, Adapts, adapting
from metaray.algorithms.families.inner_loop import predict_at, steps_of, support_loss, with_statistics
from metaray.algorithms.families.inner_lr import InnerLR, rates
from metaray.algorithms.families.inner_optimizers import PLAIN, StepsBy
from metaray.algorithms.task_shape import TaskShape
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.phases import in_phase


class IMAML(Algorithm):
    """iMAML: the outer gradient of a proximal inner problem, from its solution alone.

    Rajeswaran, Finn, Kakade and Levine ("Meta-learning with implicit gradients", NeurIPS 2019, arXiv:1909.04630).
    The inner problem keeps near theta (equation 4), and the gradient follows from the implicit function theorem
    (equation 6), without the path that led to the solution:

        phi* = argmin_phi L_s(phi) + lambda/2 ||phi - theta||^2
        d L_q(phi*) / d theta = (I + H_s(phi*) / lambda)^-1 grad L_q(phi*)

    phi* is approached by `inner_steps` of gradient descent from theta, the inverse by `cg_steps` of conjugate gradient
    (algorithm 2), each one Hessian-vector product. Also known as proximal meta-learning.

    Where `adapts` names a part of theta, phi is that part, and psi, the rest, is held while the inner problem is
    solved. With x what the second equation gives, psi then has, by the same theorem,

        d L_q / d psi = grad_psi L_q - 1/lambda * (d/d psi grad_phi L_s)^T x

    Departure: where I + H_s/lambda is not positive definite, conjugate gradient stops at the first direction of
    negative curvature, and if that is the very first, the outer gradient is the first-order one; the authors rely on
    damping (`damping` here, 0 by default).

    Attributes:
        inner_lr: Step size of the inner gradient descent.
        inner_steps: Number of steps of the inner gradient descent.
        proximity: Strength lambda of the proximal term; the larger, the nearer phi* stays to theta.
        cg_steps: Number of steps of conjugate gradient.
        damping: Number added to the eigenvalues of I + H_s/lambda.
        adapts: Patterns of the parameters phi that the inner problem solves for; by default all of theta.
        inner_optimizer: Optimiser of the inner descent. If it reaches the solution, the outer gradient does not depend
            on it.
    """

    kind: ClassVar[str] = "imaml"
    gradient_steps: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = False
    left_out_of_json: ClassVar[tuple[str, ...]] = ("adapts", "inner_optimizer")

    inner_lr: InnerLR = 0.01
    inner_steps: int = Field(default=16, ge=0)
    proximity: float = Field(default=2.0, gt=0)
    cg_steps: int = Field(default=5, ge=1)
    damping: float = Field(default=0.0, ge=0)
    adapts: Adapts = EVERYTHING
    inner_optimizer: StepsBy = PLAIN

    @property
    def differentiates_twice(self) -> bool:
        """Always true, because of the Hessian-vector products."""
        return True

    def init(self, network: nn.Module, task_shape: TaskShape) -> Tensors:
        """The network's parameters as meta-parameters.

        Raises:
            InputError: If a pattern of `adapts` fits no parameter.
        """
        meta = super().init(network, task_shape)
        adapting(self.adapts, list(meta), network)
        return meta

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """Solve the inner problem for phi, without a graph; psi, the rest of theta, is returned unchanged."""
        return with_statistics(self._solve(meta, support, context), support, context, self.batch_norm)

    @in_phase("inner loop")
    def _solve(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        moving = adapting(self.adapts, list(meta), context.network)
        alpha = rates(self.inner_lr, moving, context.step)
        of_whole = support_loss(support, context)
        start = {name: value.detach() for name, value in meta.items()}
        phi = anchor = {name: start[name] for name in moving}
        state = self.inner_optimizer.begin(anchor)
        for _ in range(steps_of(self.inner_steps, context)):
            gradient = context.gradient(lambda some: of_whole({**start, **some}), phi, differentiable=False)
            pulled = {name: g + self.proximity * (phi[name] - anchor[name]) for name, g in gradient.items()}
            directions, state = self.inner_optimizer.directions(pulled, state)
            phi = {name: value - alpha[name] * directions[name] for name, value in phi.items()}
        return {**start, **phi}

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        """Predict with the network at phi and psi."""
        return predict_at(adapted, x, context)

    def meta_gradient(self, meta: Tensors, chunk: TensorEpisode, context: Context) -> MetaGradient:
        """Compute the outer gradient of equation 6 by conjugate gradient."""

        def gradient_of(episode: TensorEpisode) -> tuple[Tensors, Outcome]:
            phi = self._solve(meta, episode.support, context)

            def output(at: Tensors) -> Tensor:
                adapted = with_statistics(at, episode.support, context, self.batch_norm)
                return predict_at(adapted, episode.query.x, context)

            slope = context.gradient(lambda at: context.loss(output(at), episode.query.y), phi, differentiable=False)
            _, curve = context.curvature(support_loss(episode.support, context, second_order=True), phi)

            moving = adapting(self.adapts, list(meta), context.network)
            still = {name: torch.zeros_like(value) for name, value in phi.items() if name not in set(moving)}

            def whole(vector: Tensors) -> Tensors:
                return {name: vector[name] if name in vector else still[name] for name in meta}

            def matrix(vector: Tensors) -> Tensors:
                bent = curve(whole(vector))
                return {n: (1 + self.damping) * v + bent[n] / self.proximity for n, v in vector.items()}

            with torch.no_grad():
                found = output(phi)
                outcome = Outcome(context.loss(found, episode.query.y), context.score(found, episode.query.y))
            solution = conjugate_gradient(matrix, {name: slope[name] for name in moving}, self.cg_steps)
            if not still:
                return solution, outcome
            bent = curve(whole(solution))
            rest = {name: slope[name] - bent[name] / self.proximity for name in still}
            return {name: solution[name] if name in solution else rest[name] for name in meta}, outcome

        return by_episode(gradient_of, chunk, context)


def conjugate_gradient(matrix: Callable[[Tensors], Tensors], b: Tensors, steps: int) -> Tensors:
    """x with A x = b for a symmetric positive definite A, approximately (Hestenes and Stiefel, 1952).

    It stops at an exact solution, and at a direction along which A is not positive; if that is the first, x is b.
    Without branches, so that episodes can be mapped over.

    Args:
        matrix: Multiplies A with a vector.
        b: The right side; x starts at zero.
        steps: Number of steps at most.
    """
    x = {name: torch.zeros_like(value) for name, value in b.items()}
    residual = direction = b
    square = _dot(residual, residual)
    started = going = square > 0
    for number in range(steps):
        image = matrix(direction)
        curvature = _dot(direction, image)
        going = going & (curvature > 0)
        started = going if number == 0 else started
        length = torch.where(going, square / curvature, 0.0)
        x = {name: value + length * direction[name] for name, value in x.items()}
        residual = {name: value - length * image[name] for name, value in residual.items()}
        before, square = square, _dot(residual, residual)
        ratio = torch.where(going, square / before, 0.0)
        direction = {name: residual[name] + ratio * value for name, value in direction.items()}
    return {name: torch.where(started, value, b[name]) for name, value in x.items()}


def _dot(a: Tensors, b: Tensors) -> Tensor:
    return torch.stack([(value * b[name]).sum() for name, value in a.items()]).sum()
