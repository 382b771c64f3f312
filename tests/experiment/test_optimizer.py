"""The optimiser of an experiment: JSON as it was before optimisers were parts, and everything that has come since."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from metaray.config import replace
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.experiment.optimizer import Optimizer
from metaray.experiment.overrides import changed, flatten, override
from metaray.experiment.packages import packages_of
from metaray.imports import EVERY_FIELD
from metaray.optimizers import OPTIMIZERS, SGD, Adam, AdamW, CustomOptimizer, Group, OuterOptimizer
from metaray.optimizers.schedules import Constant, Cosine, LinearWarmUp, Schedule, Step
from tests.optimizers import own

MakeExperiment = Callable[..., Experiment]
OWN = own.__name__
BEFORE: dict[str, Any] = {
    "betas": [0.9, 0.999],
    "clip_norm": None,
    "decay": 0.5,
    "decay_every": 2000,
    "final_lr_fraction": 0.0,
    "kind": "adam",
    "momentum": 0.0,
    "outer_lr": 0.001,
    "schedule": "constant",
    "warmup_steps": 0,
    "weight_decay": 0.0,
}
"""Every field, as experiments were written before."""


def tree(experiment: Experiment) -> Any:
    return json.loads(experiment.to_json())["optimizer"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"kind": "adamw", "schedule": "cosine", "warmup_steps": 3, "final_lr_fraction": 0.1, "clip_norm": 1.0},
        {"kind": "sgd", "momentum": 0.9, "schedule": "step", "decay": 0.1, "decay_every": 7, "weight_decay": 0.01},
        {"kind": "adam", "momentum": 0.5, "decay": 0.25},
        {"kind": "sgd", "betas": [0.5, 0.6], "outer_lr": 1.0},
    ],
    ids=str,
)
def test_json_of_before_is_read_and_written_as_it_was(changes: dict[str, Any], make_experiment: MakeExperiment) -> None:
    before = BEFORE | changes
    experiment = make_experiment(optimizer=before)
    assert tree(experiment) == before and type(experiment.optimizer) is OPTIMIZERS[before["kind"]]
    assert Experiment.from_json(experiment.to_json()) == experiment
    assert make_experiment(optimizer=Optimizer(**before)) == experiment
    assert make_experiment(optimizer=changes | {"kind": before["kind"]}) == experiment


def test_an_absent_kind_is_adam(make_experiment: MakeExperiment) -> None:
    assert make_experiment(optimizer={"outer_lr": 0.5}).optimizer == Adam(outer_lr=0.5)
    text = json.loads(make_experiment().to_json())
    del text["optimizer"]
    assert Experiment.from_json(json.dumps(text)).optimizer == Adam()


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(momentum=0.9, nesterov=True),
        AdamW(groups={"head.*": Group(outer_lr=0.1), "*": Group(weight_decay=0.5)}),
        Adam(schedule=Step(decay=0.3)),
        Adam(schedule="linear"),
        Adam(schedule=LinearWarmUp(steps=3, then=own.Polynomial(power=2))),
        own.Signum(momentum=0.5, schedule=own.Polynomial(), groups={"*": Group()}),
        CustomOptimizer(path="torch.optim:RAdam", options={"betas": [0.5, 0.9]}),
    ],
    ids=str,
)
def test_what_is_new_comes_back_from_json(optimizer: OuterOptimizer, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(optimizer=optimizer)
    experiment.require_faithful()
    again = Experiment.from_json(experiment.to_json()).optimizer
    assert again == optimizer and type(again) is type(optimizer) and type(again.schedule) is type(optimizer.schedule)
    whole = experiment.model_dump(mode="json", context=EVERY_FIELD)
    assert Experiment.parse(whole, where="whole") == experiment and "groups" in whole["optimizer"]


def test_the_short_form_has_the_defaults_of_the_parts() -> None:
    for kind in ("adam", "adamw", "sgd"):
        assert Optimizer.parse({"kind": kind}, where="optimizer").part() == OPTIMIZERS[kind]()


def test_import_paths_need_trust_where_it_is_asked_for(make_experiment: MakeExperiment) -> None:
    for optimizer in (own.Signum(), Adam(schedule=own.Polynomial()), CustomOptimizer(path=f"{OWN}:Nested")):
        experiment = make_experiment(optimizer=optimizer)
        assert packages_of(experiment) == ("tests",)
        assert Experiment.from_json(experiment.to_json(), trust=("tests",)) == experiment
        with pytest.raises(InputError, match=f"refusing to import '{OWN}:"):
            Experiment.from_json(experiment.to_json(), trust=())


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["optimizer.outer_lr=0.5"], Adam(outer_lr=0.5)),
        (["optimizer.kind=sgd", "optimizer.momentum=0.9", "optimizer.nesterov=true"], SGD(momentum=0.9, nesterov=True)),
        (["optimizer.momentum=0.9"], Adam(momentum=0.9)),
        (["optimizer.groups.head.*.outer_lr=0.5"], Adam(groups={"head.*": Group(outer_lr=0.5)})),
        (
            ["optimizer.groups.*.bias.weight_decay=0", "optimizer.groups.*.bias.outer_lr=0.5"],
            Adam(groups={"*.bias": Group(outer_lr=0.5, weight_decay=0)}),
        ),
        (['optimizer.groups.head.*={"outer_lr": 2}'], Adam(groups={"head.*": Group(outer_lr=2)})),
        (['optimizer.groups={"*": {}}'], Adam(groups={"*": Group()})),
        (["optimizer.schedule=cosine"], Adam(schedule="cosine")),
        (["optimizer.schedule.kind=cosine", "optimizer.schedule.final_lr_fraction=0.5"], None),
        (["optimizer.schedule.power=2", f"optimizer.schedule.kind={OWN}:Polynomial"], None),
        ([f"optimizer.schedule={OWN}:Polynomial"], Adam(schedule=own.Polynomial())),
        ([f"optimizer.kind={OWN}:Signum", "optimizer.momentum=0.5"], own.Signum(momentum=0.5)),
        (
            ["optimizer.kind=custom", "optimizer.options.betas=[0.5,0.9]", "optimizer.path=torch.optim:RAdam"],
            CustomOptimizer(path="torch.optim:RAdam", options={"betas": [0.5, 0.9]}),
        ),
    ],
)
def test_settings(settings: list[str], expected: OuterOptimizer | None, make_experiment: MakeExperiment) -> None:
    schedules: dict[str, Schedule] = {
        "cosine": Cosine(final_lr_fraction=0.5),
        f"{OWN}:Polynomial": own.Polynomial(power=2),
    }
    kind = next((setting.partition("=")[2] for setting in settings if ".schedule.kind" in setting), "")
    found = override(make_experiment(optimizer=Adam()), settings).optimizer
    assert found == (expected or Adam(schedule=schedules[kind]))


def test_another_kind_keeps_what_both_have(make_experiment: MakeExperiment) -> None:
    before = make_experiment(optimizer=SGD(outer_lr=0.2, momentum=0.7, schedule="cosine", groups={"*": Group()}))
    kept = {"outer_lr": 0.2, "schedule": "cosine", "groups": {"*": Group()}}
    assert override(before, ["optimizer.kind=adamw"]).optimizer == AdamW(momentum=0.7, **kept)
    assert override(before, [f"optimizer.kind={OWN}:Signum"]).optimizer == own.Signum(**kept)
    back = override(make_experiment(optimizer=own.Signum(outer_lr=0.2)), ["optimizer.kind=sgd"]).optimizer
    assert back == SGD(outer_lr=0.2)
    warm = make_experiment(optimizer=Adam(schedule=Step(decay=0.1)))
    assert override(warm, ["optimizer.schedule.kind=constant"]).optimizer == Adam(schedule=Constant())


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("optimizer.nestrov=true", "unknown key 'optimizer.nestrov'. Did you mean 'optimizer.nesterov'"),
        ("optimizer.kind=addam", "unknown optimizer 'addam'. Did you mean 'adam'"),
        ("optimizer.kind=torch.optim:Adam", "'torch.optim:Adam' is not of type OuterOptimizer"),
        ("optimizer.schedule.kind=cosin", "unknown schedule 'cosin'. Did you mean 'cosine'"),
        ("optimizer.schedule.decay=0.1", "schedule constant: unknown key 'decay'"),
        ("optimizer.groups.*.outer_lr=-1", r"groups.\*.outer_lr: .*\(got -1\)"),
        ("optimizer.groups.*.outer_lrr=1", r"optimizer adam: groups.\*.outer_lrr: "),
        ("optimizer.kind=custom", "optimizer custom: path is missing"),
    ],
)
def test_wrong_settings(setting: str, told: str, make_experiment: MakeExperiment) -> None:
    with pytest.raises(InputError, match=told):
        override(make_experiment(), [setting])


def test_every_key_of_the_whole_description_can_be_set(make_experiment: MakeExperiment) -> None:
    groups = {"head.*": Group(outer_lr=0.5)}
    for optimizer in (SGD(groups=groups), own.Signum(schedule=own.Polynomial(), groups=groups)):
        experiment = make_experiment(optimizer=optimizer)
        whole = experiment.model_dump(mode="json", context=EVERY_FIELD)
        settings = [f"{key}={value}" for key, value in flatten(whole).items() if key.startswith("optimizer.")]
        assert override(experiment, settings) == experiment
        assert override(make_experiment(), settings).optimizer == optimizer


def test_searches_set_fields_of_any_classic_kind(make_experiment: MakeExperiment) -> None:
    for kind in ("adam", "sgd"):
        found = changed(make_experiment(), [("optimizer.momentum", 0.5), ("optimizer.kind", kind)]).optimizer
        assert found == replace(OPTIMIZERS[kind](outer_lr=0.01), momentum=0.5)
