"""The names of what needs no training and stands beside scores, known without what computes it."""

from collections.abc import Mapping

NEAREST = "nearest_neighbor"
FROZEN = "frozen_encoder"
TF_IDF = "tf_idf"
TITLES: Mapping[str, str] = {
    NEAREST: "nearest neighbour",
    "class_means": "class means",
    FROZEN: "class means of the frozen encoder",
    TF_IDF: "class means of TF-IDF",
    "support_mean": "support mean",
    "ridge": "ridge regression",
    "logistic": "logistic regression",
    "global_mean": "global mean",
    "item_mean": "item mean",
    "item_mean_and_offset": "item mean and offset",
    "item_mean_and_shrunk_offset": "item mean and shrunk offset",
}
"""Titles of the baselines in reports, in their order; `metaray.algorithms.per_task.BASELINES` computes them."""


def title_of(name: str) -> str:
    """Title of a baseline in reports; its name if it is no longer known."""
    return TITLES.get(name, name.replace("_", " "))
