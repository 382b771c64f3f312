"""What conformance cases do not hold of which algorithm, and why.

A declared case is run all the same and must fail: a declaration that is no longer true fails the suite.
"""

HEAD = "its output layer has one learned output a class"
FIRST_ORDER = "inner gradients count as constants, so the meta-gradient is not the derivative of the loss"

DECLARED: dict[tuple[str, ...], str] = {
    ("meta_gradient_against_finite_differences", "fomaml"): FIRST_ORDER,
    ("meta_gradient_against_finite_differences", "reptile"): "theta - phi is the gradient of no loss",
    **{
        ("labels_can_be_permuted", kind): HEAD
        for kind in (
            *("maml", "fomaml", "reptile", "anil", "boil", "meta_sgd", "mamlpp", "imaml", "cavia"),
            *("learned_optimizer", "cnp"),
        )
    },
    ("without_inner_steps_labels_do_not_matter", "proto_maml"): "its head starts at the class means",
}
"""(case, kind, and where that matters task or protocol) -> reason. The case is a test's name without `test_`."""

QUIET: dict[tuple[str, ...], str] = {}
"""(kind, pattern of meta-parameters, and where that matters task or protocol) -> why they receive no gradient."""
