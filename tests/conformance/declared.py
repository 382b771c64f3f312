"""What conformance cases do not hold of which algorithm, and why.

A declared case is run all the same and must fail: a declaration that is no longer true fails the suite.
"""

from collections.abc import Callable

from metaray.algorithms import Algorithm

FIRST_ORDER = "inner gradients count as constants, so the meta-gradient is not the derivative of the loss"
BY_LABEL = "it is fixed to its ways because it has learned something for each label"

DECLARED: dict[tuple[str, ...], str] = {
    ("meta_gradient_against_finite_differences", "fomaml"): FIRST_ORDER,
    ("meta_gradient_against_finite_differences", "reptile"): "theta - phi is the gradient of no loss",
    ("without_batch_norm_the_protocols_agree", "relationnet"): "its relation module has batch norm of its own",
    ("without_inner_steps_labels_do_not_matter", "proto_maml"): "its head starts at the class means",
}
"""(case, kind, and where that matters task or protocol) -> reason. The case is a test's name without `test_`."""

RULES: dict[str, tuple[Callable[[Algorithm], bool], str]] = {
    "labels_can_be_permuted": (lambda algorithm: algorithm.fixed_ways, BY_LABEL),
}
"""case -> (whether it fails for an algorithm, reason)."""

QUIET: dict[tuple[str, ...], str] = {}
"""(kind, pattern of meta-parameters, and where that matters task or protocol) -> why they receive no gradient."""
