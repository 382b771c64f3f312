"""Changing experiments by dotted keys."""

from collections.abc import Callable
from typing import Any

import pytest

from metaray.algorithms import CAVIA, MAML, MAMLPP, Algorithm, ProtoNet
from metaray.algorithms.families.inner_lr import Schedule
from metaray.config import replace
from metaray.data import UMTRA, ClassStore, Glyphs
from metaray.episodes.augmentation import Augmentation
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.experiment.optimizer import Optimizer
from metaray.experiment.overrides import changed, differences, flatten, override
from metaray.models import MLP, Conv4
from metaray.optimizers import AdamW

MakeExperiment = Callable[..., Experiment]


def lines(before: Experiment, after: Experiment) -> list[str]:
    return differences(before.model_dump(mode="json"), after.model_dump(mode="json"))


def get(experiment: Experiment, path: str) -> Any:
    found: Any = experiment
    for part in path.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("num_steps=7", 7),
        ("name=other-name", "other-name"),
        ("algorithm.inner_lr=0.25", 0.25),
        ("algorithm.second_order=false", False),
        ("algorithm.second_order=False", False),
        ('algorithm.inner_lr={"head.*": 0.5, "*": 0.1}', {"head.*": 0.5, "*": 0.1}),
        ('algorithm.inner_lr={"steps": [0, 5], "values": [0.4, 0.1]}', Schedule(steps=(0, 5), values=(0.4, 0.1))),
        ("model.hidden=[4,5]", (4, 5)),
        ("optimizer.clip_norm=2.5", 2.5),
        ("optimizer.clip_norm=none", None),
        ("chunk_size=null", None),
        ("evaluation.inner_steps=4", 4),
        ("source.path=with=sign.arrow", "with=sign.arrow"),
        ("augmentation.crop_padding=4", 4),
        ("augmentation=null", None),
    ],
)
def test_values(setting: str, value: object, make_experiment: MakeExperiment) -> None:
    assert get(override(make_experiment(), [setting]), setting.partition("=")[0]) == value


def test_what_json_leaves_out_can_be_set(make_experiment: MakeExperiment) -> None:
    before = make_experiment()
    settings = ["augmentation.flip=true", "augmentation.on=query", "source.mean=[0.5]", "source.std=[0.25]"]
    after = override(before, settings)
    assert after.augmentation == Augmentation(flip=True, on="query")
    assert isinstance(after.source, ClassStore) and (after.source.mean, after.source.std) == ((0.5,), (0.25,))
    assert Experiment.from_json(after.to_json()) == after
    written = before.model_dump(mode="json")
    assert "augmentation" not in written and "mean" not in written["source"]
    assert override(after, ["augmentation=null", "source.mean=null", "source.std=null"]) == before
    with pytest.raises(InputError, match=r"'augmentation\.flop'.*augmentation\.flip"):
        override(before, ["augmentation.flop=true"])


def test_nothing_else_changes_and_later_settings_win(make_experiment: MakeExperiment) -> None:
    before = make_experiment()
    after = override(before, ["seed=1", "optimizer.outer_lr=0.5", "seed=2"])
    assert lines(before, after) == ["optimizer.outer_lr: 0.01 -> 0.5", "seed: 0 -> 2"]
    assert override(before, []) == before


def test_a_part_that_was_left_out_starts_from_the_training_episodes(make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(algorithm=ProtoNet())
    assert experiment.evaluation.episodes is None
    after = override(experiment, ["evaluation.episodes.ways=5", "evaluation.episodes.shots=3"])
    assert after.evaluation.episodes is not None
    assert after.evaluation.episodes.model_dump() == {"ways": 5, "shots": 3, "queries": 2}
    assert after.episodes == experiment.episodes


def test_another_kind_starts_from_its_defaults(make_experiment: MakeExperiment) -> None:
    assert override(make_experiment(), ["algorithm.kind=protonet"]).algorithm == ProtoNet()
    assert override(make_experiment(), ["algorithm.kind=maml"]).algorithm == make_experiment().algorithm
    after = override(make_experiment(), ["model.kind=conv4", "model.channels=8"])
    assert after.model == Conv4(channels=8)
    back = override(make_experiment(algorithm=ProtoNet()), ["algorithm.kind=maml", "algorithm.inner_lr=0.3"])
    assert back.algorithm == MAML(inner_lr=0.3)
    custom = override(make_experiment(), ["model.kind=custom", "model.path=torch.nn:Linear", "model.options.bias=true"])
    assert custom.model.model_dump() == {"path": "torch.nn:Linear", "options": {"bias": True}}
    named = override(custom, ["model.options.kind=1", "model.options.kind=2"])
    assert named.model.model_dump()["options"] == {"bias": True, "kind": 2}, "a user's own option, no kind of ours"


def test_another_kind_inside_a_source_starts_from_its_defaults(make_experiment: MakeExperiment) -> None:
    wrapped = ["source.kind=umtra", "source.flip=true", "source.source.path=a.arrow", "source.source.kind=class_store"]
    experiment = override(make_experiment(), wrapped)
    assert experiment.source == UMTRA(source=ClassStore(path="a.arrow"), flip=True)
    assert override(experiment, ["source.source.kind=glyphs"]).source == UMTRA(source=Glyphs(), flip=True)
    with pytest.raises(InputError, match=r"source of examples glyphs: unknown key 'path'"):
        override(experiment, ["source.source.kind=glyphs", "source.source.path=a.arrow"])


def test_kinds_come_first_whatever_the_order(make_experiment: MakeExperiment) -> None:
    settings = ["source.flip=true", "source.source.kind=glyphs", "model.channels=8", "model.kind=conv4"]
    experiment = override(make_experiment(), [*settings, "source.kind=umtra"])
    assert experiment.source == UMTRA(source=Glyphs(), flip=True) and experiment.model == Conv4(channels=8)


@pytest.mark.parametrize(
    ("setting", "near"),
    [
        ("num_step=7", "num_steps"),
        ("algoritm.inner_lr=1", "algorithm"),
        ("algorithm.inner_steeps=1", "algorithm.inner_steps"),
        ("optimizer.outer_learning_rate=1", "optimizer.outer_lr"),
        ("evaluation.episodes.wais=3", "evaluation.episodes.ways"),
    ],
)
def test_unknown_keys(setting: str, near: str, make_experiment: MakeExperiment) -> None:
    key = setting.partition("=")[0]
    with pytest.raises(InputError, match=rf"unknown key '{key}'.*Did you mean '{near}'"):
        override(make_experiment(), [setting])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("num_steps", "--set 'num_steps': write it as dotted.key=value"),
        ("=3", "write it as dotted.key=value"),
        ("seed.deeper=3", "key 'seed.deeper': seed is a value, not a group"),
        ("algorithm.inner_lr=-1", r"inner_lr: .*\(got -1\)"),
        ("algorithm.inner_lr=NaN", "inner_lr: .*finite"),
        ("algorithm.inner_lr=fast", "inner_lr: .*'fast'"),
        ("episodes.ways=five", "episodes.ways: .*'five'"),
        ("algorithm.kind=mamml", "unknown algorithm 'mamml'. Did you mean 'maml'"),
        ("evaluation.episodes.ways=5", "cannot train at 3 ways"),
        ("optimizer=3", "optimizer"),
        ("algorithm=maml", "must be an object with a 'kind'"),
    ],
)
def test_wrong_settings(setting: str, message: str, make_experiment: MakeExperiment) -> None:
    with pytest.raises(InputError, match=message):
        override(make_experiment(), [setting])


def test_replace_validates(make_experiment: MakeExperiment) -> None:
    assert replace(make_experiment(), optimizer=Optimizer(outer_lr=0.5)).optimizer.outer_lr == 0.5
    with pytest.raises(InputError, match="unknown key 'nun_steps'. Did you mean 'num_steps'"):
        replace(make_experiment(), nun_steps=3)
    with pytest.raises(InputError, match=r"Experiment: num_steps: .*\(got -1\)"):
        replace(make_experiment(), num_steps=-1)
    with pytest.raises(InputError, match="algorithm"):
        replace(make_experiment(), algorithm=MLP())


def test_differences_across_kinds(make_experiment: MakeExperiment) -> None:
    before = make_experiment()
    found = lines(before, replace(before, algorithm=ProtoNet()))
    assert "algorithm.kind: maml -> protonet" in found and "algorithm.inner_lr: 0.1 -> (absent)" in found
    assert lines(before, replace(before)) == []


def test_flatten() -> None:
    tree = {"a": {"b": 1, "c": {}}, "d": "text", "e": [1, None], "f": True}
    assert flatten(tree) == {"a.b": "1", "a.c": "{}", "d": "text", "e": "[1, null]", "f": "true"}


def test_another_optimizer_keeps_its_other_settings(make_experiment: MakeExperiment) -> None:
    before = make_experiment(optimizer=Optimizer(outer_lr=0.02, schedule="cosine"))
    after = override(before, ["optimizer.kind=adamw"]).optimizer
    assert after == AdamW(outer_lr=0.02, schedule="cosine")


class Fast(MAML):
    """An algorithm from elsewhere, whose rate starts elsewhere."""

    inner_lr: float | dict[str, float] = 0.7


FAST = f"{__name__}:Fast"
SCHEDULE = {"steps": [0, 5], "values": [0.4, 0.1]}


def inner_lr_after(algorithm: Algorithm, settings: list[str], make_experiment: MakeExperiment) -> object:
    tree = override(make_experiment(algorithm=algorithm), settings).model_dump(mode="json")
    return tree["algorithm"]["inner_lr"]


@pytest.mark.parametrize(
    ("algorithm", "settings", "expected"),
    [
        (MAML(inner_lr=0.1), ["head.*=0.01"], {"*": 0.1, "head.*": 0.01}),
        (MAML(inner_lr=0.1), ["layers.0.conv.weight=0"], {"*": 0.1, "layers.0.conv.weight": 0.0}),
        (MAML(inner_lr=0.1), ["*=0.2"], {"*": 0.2}),
        (MAML(inner_lr=0.1), ["head.kind=0.2", "body.*=0.3"], {"*": 0.1, "head.kind": 0.2, "body.*": 0.3}),
        (MAML(inner_lr=0.1), ["0=0.2"], {"*": 0.1, "0": 0.2}),
        (MAML(inner_lr={"*": 0.1, "a.b": 0.2}), ["a.b=0.3", "c=0.4"], {"*": 0.1, "a.b": 0.3, "c": 0.4}),
        (MAML(inner_lr={"a*": 0.1}), ["b*=0.3"], {"a*": 0.1, "b*": 0.3}),
        (MAML.parse({"inner_lr": SCHEDULE}, where=""), ["values=[1,2]"], {"steps": [0, 5], "values": [1.0, 2.0]}),
        (MAML(inner_lr=0.1), ["steps=[0,5]", "values=[0.4,0.1]"], SCHEDULE),
        (MAMLPP(inner_lr=(0.1, 0.2, 0.3), inner_steps=3), ["0=0.5", "2=0"], [0.5, 0.2, 0.0]),
        (MAMLPP(inner_lr=0.1, inner_steps=3), ["1=0.5"], [0.1, 0.5, 0.1]),
        (MAMLPP(inner_lr=0.1), ["head.*=0.5"], {"*": 0.1, "head.*": 0.5}),
        (MAMLPP(inner_lr={"*": 0.1}), ["0.weight=0.5"], {"*": 0.1, "0.weight": 0.5}),
    ],
)
def test_parts_of_an_inner_lr(
    algorithm: Algorithm, settings: list[str], expected: object, make_experiment: MakeExperiment
) -> None:
    whole = [f"algorithm.inner_lr.{setting}" for setting in settings]
    assert inner_lr_after(algorithm, whole, make_experiment) == expected


@pytest.mark.parametrize(
    ("kind", "part", "expected"),
    [
        ("maml", "head.*", {"*": 0.01, "head.*": 0.5}),
        ("mamlpp", "4", [0.1, 0.1, 0.1, 0.1, 0.5]),
        (FAST, "head.*", {"*": 0.7, "head.*": 0.5}),
        (FAST, "4", {"*": 0.7, "4": 0.5}),
    ],
)
def test_of_another_kind_they_start_from_its_default(
    kind: str, part: str, expected: object, make_experiment: MakeExperiment
) -> None:
    settings = [f"algorithm.inner_lr.{part}=0.5", f"algorithm.kind={kind}"]
    assert inner_lr_after(ProtoNet(), settings, make_experiment) == expected


def test_parts_and_the_whole_follow_the_order_given(make_experiment: MakeExperiment) -> None:
    part, whole = "algorithm.inner_lr.head.*=0.5", "algorithm.inner_lr=0.3"
    assert inner_lr_after(MAML(), [part, whole], make_experiment) == 0.3
    assert inner_lr_after(MAML(), [whole, part], make_experiment) == {"*": 0.3, "head.*": 0.5}
    steps = ["algorithm.inner_steps=2", "algorithm.inner_lr.0=0.5"]
    assert inner_lr_after(MAMLPP(), steps, make_experiment) == [0.5, 0.1]
    kinds = ["algorithm.inner_lr=0.3", "algorithm.inner_lr.kind=0.5"]
    assert inner_lr_after(MAML(), kinds, make_experiment) == {"*": 0.3, "kind": 0.5}


@pytest.mark.parametrize(
    ("algorithm", "settings", "message"),
    [
        (
            CAVIA(inner_lr=1.0),
            ["head.*=1"],
            r"algorithm cavia: inner_lr: .*valid number \(got {'\*': 1.0, 'head.\*': 1}\)",
        ),
        (CAVIA(inner_lr=1.0), ["0=1"], "algorithm cavia: inner_lr: .*valid number"),
        (ProtoNet(), ["*=1"], r"unknown key 'algorithm.inner_lr.\*'.*Known: algorithm.batch_norm, algorithm.kind"),
        (MAML(), ["head.*=-1"], r"algorithm maml: inner_lr.head.\*: .*greater than or equal to 0 \(got -1\)"),
        (MAML(), ["head.*=fast"], r"inner_lr.head.\*: .*valid number.*'fast'"),
        (MAML(), ["steps=[0]"], "inner_lr.values is missing"),
        (
            MAML.parse({"inner_lr": SCHEDULE}, where=""),
            ["head.*=1"],
            r"^key 'algorithm.inner_lr.head.\*': inner_lr is a schedule, of steps and values: .* pattern 'head.\*'",
        ),
        (
            MAMLPP(inner_lr=(0.1, 0.2), inner_steps=2),
            ["2=1"],
            "^key 'algorithm.inner_lr.2': inner_lr is one rate per inner step, 0 to 1: '2' is none of them",
        ),
        (MAMLPP(inner_lr=(0.1, 0.2), inner_steps=2), ["-1=1"], "0 to 1: '-1' is none of them"),
        (MAMLPP(inner_lr=(0.1, 0.2), inner_steps=2), ["head.*=1"], "0 to 1: 'head.*' is none of them"),
        (MAMLPP(inner_lr=(0.1, 0.2), inner_steps=2), ["0=-1"], r"inner_lr.0: .*greater than.*\(got -1\)"),
        (MAMLPP(), ["5=1"], "0 to 4: '5' is none of them"),
    ],
)
def test_wrong_parts_of_an_inner_lr(
    algorithm: Algorithm, settings: list[str], message: str, make_experiment: MakeExperiment
) -> None:
    with pytest.raises(InputError, match=message):
        inner_lr_after(algorithm, [f"algorithm.inner_lr.{setting}" for setting in settings], make_experiment)


def test_parts_are_of_a_valid_kind(make_experiment: MakeExperiment) -> None:
    for kind, message in [
        ("mamml", "unknown algorithm 'mamml'. Did you mean 'maml'"),
        ("protonet", "algorithm protonet: unknown key 'inner_lr'"),
        ("torch:Tensor", "'torch:Tensor' is not of type Algorithm"),
        ("3", "must be an object with a 'kind'"),
    ]:
        with pytest.raises(InputError, match=message):
            override(make_experiment(), [f"algorithm.kind={kind}", "algorithm.inner_lr.0=1"])


def test_structured_values(make_experiment: MakeExperiment) -> None:
    before = make_experiment()
    given = {"*": 0.1}
    after = changed(before, [("algorithm.inner_lr", given), ("algorithm.inner_lr.head.*", 0.01), ("seed", 4)])
    rates = {"*": 0.1, "head.*": 0.01}
    assert after.algorithm == MAML(inner_lr=rates, batch_norm="transductive") and after.seed == 4
    assert given == {"*": 0.1}, "the caller's own"
    options: dict[str, Any] = {"in_features": 3}
    custom = [("model.options", options), ("model.options.bias", True), ("model.path", "torch.nn:Linear")]
    model = changed(before, [*custom, ("model.kind", "custom")]).model
    assert model.model_dump()["options"] == {"in_features": 3, "bias": True} and options == {"in_features": 3}
    assert changed(before, []) == before
    assert changed(before, {"name": "3"}.items()).name == "3", "text stays text"


def test_structured_values_are_validated(make_experiment: MakeExperiment) -> None:
    with pytest.raises(InputError, match="unknown key 'num_step'.*Did you mean 'num_steps'"):
        changed(make_experiment(), [("num_step", 3)])
    with pytest.raises(InputError, match=r"num_steps: .*\(got -1\)"):
        changed(make_experiment(), [("num_steps", -1)])
