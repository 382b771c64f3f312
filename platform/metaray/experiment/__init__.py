"""The description of a run: what is trained, on what, how, and how it is judged."""

from metaray.experiment.experiment import Checkpoint, Evaluation, Experiment, Precision
from metaray.experiment.optimizer import Optimizer

__all__ = ["Checkpoint", "Evaluation", "Experiment", "Optimizer", "Precision"]
