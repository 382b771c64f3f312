"""A learner as the next version of a registered model, with what whoever loads it must know."""

from collections.abc import Callable, Sequence
from pathlib import Path

from metaray.experiment.experiment import Experiment
from metaray.learners.alone import require_alone
from metaray.learners.encoder_link import ELSEWHERE
from metaray.learners.learner import Learner
from metaray.learners.own_code import own_code_told
from metaray.serving.columns import inputs_of, outputs_of
from metaray.serving.pyfunc import example_input
from metaray.tracking.artifact import register
from metaray.tracking.mlflow_run import MlflowRun
from metaray.tracking.report import SINGLE
from metaray.tracking.story import version_note
from metaray.training.single_queries import single_queries
from metaray.trust import trust_setting

TRUST = "trust"
"""Key of the metadata with the environment variable that a learner with code of its own needs to be loaded."""

DEPENDS = (
    "Answers depend on the other queries of the same call (transductive batch norm): give it queries of all classes at "
    "once, as it was judged. One query at a time: {}."
)
LINKED = (
    "Its encoder is not in this model: whoever loads it needs the weights with the SHA-256 {}, which lie at {} (or, "
    "after they have moved, in the storage that {} names)."
)


def new_version(
    name: str,
    tracked: MlflowRun,
    folder: Path,
    learner: Learner,
    tags: dict[str, str],
    *,
    experiment: Experiment | None,
    judged: Sequence[str] = (),
    say: Callable[[str], None] = lambda text: None,
) -> int:
    """Register a learner, with instructions for loading it; returns the number of the version.

    Args:
        name: Name of the registered model.
        tracked: MLflow run that holds the learner.
        folder: Folder of the learner's files.
        learner: The learner in that folder.
        tags: Tags of the version, including its protocol.
        experiment: Experiment whose meta-val episodes show the effect of single queries; None evaluates none.
        judged: Lines of Markdown about the learner's scores and baselines, for people.
        say: Function that is called with messages about what takes a while.
    """
    require_alone(learner.files())
    told = []
    depends = learner.heeds_batch
    if depends:
        single = "not judged"
        if experiment is not None:
            say("judging: meta-val one query at a time")
            single = str(single_queries(learner, experiment))
        tags = tags | {SINGLE: single}
        told.append(DEPENDS.format(single))
    metadata: dict[str, str | bool] = {"depends_on_batch": depends, "protocol": tags["protocol"]}
    if learner.own_code:
        told.append(own_code_told(learner.own_code))
        metadata[TRUST] = trust_setting(learner.own_code)
    if learner.link is not None:
        told.append(LINKED.format(learner.link.sha256, learner.link.at, ELSEWHERE))
    number = register(
        tracked.server,
        tracked.id,
        name=name,
        learner_folder=folder,
        inputs=inputs_of(learner),
        outputs=outputs_of(learner),
        input_example=example_input(learner),
        tags=tags | {"depends_on_batch": str(depends).lower()},
        metadata=metadata,
    )
    if experiment is not None:
        told.insert(0, version_note(experiment, judged, tracked, f"models:/{name}/{number}"))
    if told:
        tracked.server.client.update_model_version(name, str(number), "\n\n".join(told))
    return number
