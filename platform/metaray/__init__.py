"""metaray: meta-train few-shot learners on a Ray cluster, register them, adapt them to new tasks.

    import metaray as mr

    report = mr.train(experiment, workers=2)      # also: mr.tune, mr.extend, mr.submit
    learner = mr.load("models:/omniglot-maml@champion")
    task = learner.adapt(x, y)
    task.predict(x_new)

What the command line does, these functions do.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from metaray import moved

if TYPE_CHECKING:
    from pathlib import Path

    from metaray.algorithms.algorithm import Algorithm as Algorithm
    from metaray.algorithms.anil import ANIL as ANIL
    from metaray.algorithms.baseline import Baseline as Baseline
    from metaray.algorithms.baselinepp import BaselinePP as BaselinePP
    from metaray.algorithms.boil import BOIL as BOIL
    from metaray.algorithms.cavia import CAVIA as CAVIA
    from metaray.algorithms.cnp import CNP as CNP
    from metaray.algorithms.families.inner_optimizers import InnerAdam as InnerAdam
    from metaray.algorithms.families.inner_optimizers import InnerMomentum as InnerMomentum
    from metaray.algorithms.families.inner_optimizers import InnerSGD as InnerSGD
    from metaray.algorithms.fomaml import FOMAML as FOMAML
    from metaray.algorithms.imaml import IMAML as IMAML
    from metaray.algorithms.learned_optimizer import LearnedOptimizer as LearnedOptimizer
    from metaray.algorithms.maml import MAML as MAML
    from metaray.algorithms.mamlpp import MAMLPP as MAMLPP
    from metaray.algorithms.matchingnet import MatchingNet as MatchingNet
    from metaray.algorithms.meta_sgd import MetaSGD as MetaSGD
    from metaray.algorithms.metaoptnet_ridge import MetaOptNetRidge as MetaOptNetRidge
    from metaray.algorithms.metaoptnet_svm import MetaOptNetSVM as MetaOptNetSVM
    from metaray.algorithms.nearest_neighbor import NearestNeighbor as NearestNeighbor
    from metaray.algorithms.proto_maml import ProtoMAML as ProtoMAML
    from metaray.algorithms.protonet import ProtoNet as ProtoNet
    from metaray.algorithms.r2d2 import R2D2 as R2D2
    from metaray.algorithms.relationnet import RelationNet as RelationNet
    from metaray.algorithms.reptile import Reptile as Reptile
    from metaray.api.compare import compare as compare
    from metaray.api.evaluate import evaluate as evaluate
    from metaray.api.extend import extend as extend
    from metaray.api.report import report as report
    from metaray.api.stream import stream as stream
    from metaray.api.submit import submit as submit
    from metaray.api.train import train as train
    from metaray.api.tune import tune as tune
    from metaray.api.upload import upload as upload
    from metaray.data.cactus import CACTUs as CACTUs
    from metaray.data.class_store import ClassStore as ClassStore
    from metaray.data.function_family import FunctionFamily as FunctionFamily
    from metaray.data.glyphs import Glyphs as Glyphs
    from metaray.data.group_table import GroupTable as GroupTable
    from metaray.data.preprocessing import ImagePreprocessing as ImagePreprocessing
    from metaray.data.preprocessing import Preprocessing as Preprocessing
    from metaray.data.preprocessing import VectorPreprocessing as VectorPreprocessing
    from metaray.data.source import Source as Source
    from metaray.data.umtra import UMTRA as UMTRA
    from metaray.data.writing import write_class_store as write_class_store
    from metaray.episodes.augmentation import Augmentation as Augmentation
    from metaray.episodes.episode import EpisodeSpec as EpisodeSpec
    from metaray.errors import InputError as InputError
    from metaray.errors import RunFailed as RunFailed
    from metaray.errors import RunStopped as RunStopped
    from metaray.experiment.experiment import Checkpoint as Checkpoint
    from metaray.experiment.experiment import Evaluation as Evaluation
    from metaray.experiment.experiment import Experiment as Experiment
    from metaray.experiment.experiment import Precision as Precision
    from metaray.learners.learner import AdaptedTask as AdaptedTask
    from metaray.learners.learner import Learner as Learner
    from metaray.models.conv4 import Conv4 as Conv4
    from metaray.models.custom import Custom as Custom
    from metaray.models.encoders.encoder import Encoder as Encoder
    from metaray.models.linear_map import LinearMap as LinearMap
    from metaray.models.lora import LoRA as LoRA
    from metaray.models.mlp import MLP as MLP
    from metaray.models.r2d2_net import R2D2Net as R2D2Net
    from metaray.models.resnet12 import ResNet12 as ResNet12
    from metaray.models.table_mlp import TableMLP as TableMLP
    from metaray.optimizers.adam import Adam as Adam
    from metaray.optimizers.adamw import AdamW as AdamW
    from metaray.optimizers.custom import CustomOptimizer as CustomOptimizer
    from metaray.optimizers.groups import Group as Group
    from metaray.optimizers.sgd import SGD as SGD
    from metaray.tasks import Binary as Binary
    from metaray.tasks import Classification as Classification
    from metaray.tasks import Regression as Regression
    from metaray.tasks import TaskKind as TaskKind
    from metaray.tracking.report import NotUploaded as NotUploaded
    from metaray.tuning.search import Search as Search

__all__ = [
    "ANIL",
    "Adam",
    "AdamW",
    "AdaptedTask",
    "Algorithm",
    "Augmentation",
    "BOIL",
    "Baseline",
    "BaselinePP",
    "Binary",
    "CACTUs",
    "CAVIA",
    "CNP",
    "Checkpoint",
    "ClassStore",
    "Classification",
    "Conv4",
    "Custom",
    "CustomOptimizer",
    "Encoder",
    "EpisodeSpec",
    "Evaluation",
    "Experiment",
    "FOMAML",
    "FunctionFamily",
    "Glyphs",
    "Group",
    "GroupTable",
    "IMAML",
    "ImagePreprocessing",
    "InnerAdam",
    "InnerMomentum",
    "InnerSGD",
    "InputError",
    "LearnedOptimizer",
    "Learner",
    "LinearMap",
    "LoRA",
    "MAML",
    "MAMLPP",
    "MLP",
    "MatchingNet",
    "MetaOptNetRidge",
    "MetaOptNetSVM",
    "MetaSGD",
    "NearestNeighbor",
    "NotUploaded",
    "Precision",
    "Preprocessing",
    "ProtoMAML",
    "ProtoNet",
    "R2D2",
    "Regression",
    "RelationNet",
    "Reptile",
    "R2D2Net",
    "ResNet12",
    "RunFailed",
    "RunStopped",
    "SGD",
    "Search",
    "Source",
    "TaskKind",
    "TableMLP",
    "UMTRA",
    "VectorPreprocessing",
    "compare",
    "evaluate",
    "extend",
    "load",
    "load_task",
    "report",
    "stream",
    "submit",
    "train",
    "tune",
    "upload",
    "write_class_store",
]

_HOMES = {
    "ANIL": "metaray.algorithms.anil",
    "Adam": "metaray.optimizers.adam",
    "AdamW": "metaray.optimizers.adamw",
    "AdaptedTask": "metaray.learners.learner",
    "Algorithm": "metaray.algorithms.algorithm",
    "BOIL": "metaray.algorithms.boil",
    "Baseline": "metaray.algorithms.baseline",
    "BaselinePP": "metaray.algorithms.baselinepp",
    "Binary": "metaray.tasks.binary",
    "CACTUs": "metaray.data.cactus",
    "CAVIA": "metaray.algorithms.cavia",
    "CNP": "metaray.algorithms.cnp",
    "Checkpoint": "metaray.experiment.experiment",
    "ClassStore": "metaray.data.class_store",
    "Classification": "metaray.tasks.classification",
    "Conv4": "metaray.models.conv4",
    "Custom": "metaray.models.custom",
    "Encoder": "metaray.models.encoders.encoder",
    "CustomOptimizer": "metaray.optimizers.custom",
    "Augmentation": "metaray.episodes.augmentation",
    "EpisodeSpec": "metaray.episodes.episode",
    "Evaluation": "metaray.experiment.experiment",
    "Experiment": "metaray.experiment.experiment",
    "FOMAML": "metaray.algorithms.fomaml",
    "FunctionFamily": "metaray.data.function_family",
    "Glyphs": "metaray.data.glyphs",
    "Group": "metaray.optimizers.groups",
    "GroupTable": "metaray.data.group_table",
    "IMAML": "metaray.algorithms.imaml",
    "ImagePreprocessing": "metaray.data.preprocessing",
    "InnerAdam": "metaray.algorithms.families.inner_optimizers",
    "InnerMomentum": "metaray.algorithms.families.inner_optimizers",
    "InnerSGD": "metaray.algorithms.families.inner_optimizers",
    "InputError": "metaray.errors",
    "LearnedOptimizer": "metaray.algorithms.learned_optimizer",
    "Learner": "metaray.learners.learner",
    "LinearMap": "metaray.models.linear_map",
    "LoRA": "metaray.models.lora",
    "MAML": "metaray.algorithms.maml",
    "MAMLPP": "metaray.algorithms.mamlpp",
    "MLP": "metaray.models.mlp",
    "MatchingNet": "metaray.algorithms.matchingnet",
    "MetaOptNetRidge": "metaray.algorithms.metaoptnet_ridge",
    "MetaOptNetSVM": "metaray.algorithms.metaoptnet_svm",
    "MetaSGD": "metaray.algorithms.meta_sgd",
    "NearestNeighbor": "metaray.algorithms.nearest_neighbor",
    "NotUploaded": "metaray.tracking.report",
    "Precision": "metaray.experiment.experiment",
    "Preprocessing": "metaray.data.preprocessing",
    "ProtoMAML": "metaray.algorithms.proto_maml",
    "ProtoNet": "metaray.algorithms.protonet",
    "R2D2": "metaray.algorithms.r2d2",
    "Regression": "metaray.tasks.regression",
    "RelationNet": "metaray.algorithms.relationnet",
    "Reptile": "metaray.algorithms.reptile",
    "R2D2Net": "metaray.models.r2d2_net",
    "ResNet12": "metaray.models.resnet12",
    "RunFailed": "metaray.errors",
    "RunStopped": "metaray.errors",
    "SGD": "metaray.optimizers.sgd",
    "Search": "metaray.tuning.search",
    "Source": "metaray.data.source",
    "TaskKind": "metaray.tasks.task_kind",
    "TableMLP": "metaray.models.table_mlp",
    "UMTRA": "metaray.data.umtra",
    "VectorPreprocessing": "metaray.data.preprocessing",
    "compare": "metaray.api.compare",
    "evaluate": "metaray.api.evaluate",
    "extend": "metaray.api.extend",
    "report": "metaray.api.report",
    "stream": "metaray.api.stream",
    "submit": "metaray.api.submit",
    "train": "metaray.api.train",
    "tune": "metaray.api.tune",
    "upload": "metaray.api.upload",
    "write_class_store": "metaray.data.writing",
}
"""Where what is offered here lives. It is imported when it is asked for: `import metaray` alone is light."""

# What the package logs is for whoever asks for it, as the standard library advises libraries.
logging.getLogger(__name__).addHandler(logging.NullHandler())

moved.install()


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    found = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load(model: str | Path, *, tracking_uri: str | None = None, trust: Sequence[str] = ()) -> Learner:
    """Load a learner from the registry, from a run or from a folder.

    Example: `metaray.load("models:/omniglot-maml@champion").adapt(x, y).predict(x_new)`.

    Args:
        model: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `runs:/ID/PATH`, or the path of a learner's folder.
        tracking_uri: URI of MLflow; None takes MLFLOW_TRACKING_URI, else `mlflow.db` in the working directory.
        trust: Packages besides metaray whose code the learner may name.

    Returns:
        The learner, which adapts to new tasks.

    Raises:
        InputError: If there is no such model, or it names code of a package that is not trusted.
    """
    # Imported here: `import metaray` alone stays light, and pure stages need no MLflow.
    import tempfile
    from pathlib import Path

    from metaray.serving.loading import load_learner

    if not str(model).startswith(("models:", "runs:")):
        return load_learner(Path(model), trust=trust)
    from metaray.tracking import artifact
    from metaray.tracking.server import MlflowServer

    server = MlflowServer.of(tracking_uri)
    server.prepare()
    with tempfile.TemporaryDirectory() as scratch:
        return load_learner(artifact.download(server, str(model), Path(scratch)), trust=trust)


def load_task(path: str | Path, *, trust: Sequence[str] = ()) -> AdaptedTask:
    """Load an adapted task that `task.save(path)` or `metaray adapt --save` wrote; it predicts exactly as before.

    Example: `metaray.load_task("my-task").predict(x_new)`.

    Args:
        path: Path of the task's folder.
        trust: Packages besides metaray whose code the task's learner may name.

    Returns:
        The adapted task, with its learner.

    Raises:
        InputError: If the folder holds no complete task, or the task names code of a package that is not trusted.
    """
    from pathlib import Path

    from metaray.learners.loading import load_task as read_task

    return read_task(Path(path), trust=trust)
