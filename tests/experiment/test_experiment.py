"""Experiments: complete, validated, the same after JSON."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaray.algorithms import MAML, R2D2, ProtoNet
from metaray.config import Config, replace
from metaray.data import UMTRA, ClassStore, FunctionFamily, Glyphs
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import InputError
from metaray.experiment.experiment import Checkpoint, Evaluation, Experiment, Initial, Precision
from metaray.experiment.optimizer import Optimizer
from metaray.experiment.overrides import differences, override
from metaray.imports import EVERY_FIELD
from metaray.models import MLP, Conv4

MakeExperiment = Callable[..., Experiment]

rate = st.floats(0, 10, allow_nan=False)
algorithms = st.one_of(
    st.builds(MAML, inner_lr=rate, inner_steps=st.integers(0, 9), second_order=st.booleans()),
    st.builds(MAML, inner_lr=st.dictionaries(st.text("ab*.", min_size=1), rate, min_size=1)),
    st.builds(ProtoNet, batch_norm=st.sampled_from(["transductive", "inductive"])),
)
specs = st.builds(EpisodeSpec, ways=st.just(5), shots=st.integers(1, 9), queries=st.integers(1, 9))
experiments = st.builds(
    Experiment,
    name=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True),
    source=st.one_of(
        st.builds(ClassStore, path=st.text("a/.", min_size=1), rotations=st.booleans()), st.just(Glyphs())
    ),
    episodes=specs,
    model=st.one_of(
        st.builds(MLP, hidden=st.lists(st.integers(1, 99), max_size=3).map(tuple)),
        st.builds(Conv4, channels=st.integers(1, 99), downsample=st.sampled_from(["max_pool", "stride"])),
    ),
    algorithm=algorithms,
    optimizer=st.builds(
        Optimizer,
        outer_lr=st.floats(1e-9, 1),
        kind=st.sampled_from(["adam", "adamw", "sgd"]),
        betas=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
        clip_norm=st.none() | st.floats(1e-3, 9),
    ),
    meta_batch_size=st.integers(1, 99),
    num_steps=st.integers(0, 10**6),
    evaluation=st.builds(Evaluation, episodes=st.none() | specs, inner_steps=st.none() | st.integers(0, 9)),
    checkpoint=st.builds(Checkpoint, every=st.integers(0, 99)),
    chunk_size=st.none() | st.integers(1, 9),
    precision=st.builds(Precision, dtype=st.sampled_from(["float32", "bfloat16"]), channels_last=st.booleans()),
    seed=st.integers(0, 2**64 - 1),
)


@given(experiments)
def test_json_round_trip(experiment: Experiment) -> None:
    text = experiment.to_json()
    again = Experiment.from_json(text)
    assert again == experiment and again.to_json() == text
    assert type(again.algorithm) is type(experiment.algorithm)


def test_the_state_it_starts_from_is_told_only_where_there_is_one(make_experiment: MakeExperiment) -> None:
    plain = make_experiment()
    assert plain.initial is None and "initial" not in plain.model_dump(mode="json", context=EVERY_FIELD)
    start = Initial(run="other", step=5, parameters_sha256="0" * 64)
    started = make_experiment(initial=start)
    assert Experiment.from_json(started.to_json()) == started != plain
    assert differences(plain.model_dump(mode="json"), started.model_dump(mode="json")) == [
        f"initial.parameters_sha256: (absent) -> {'0' * 64}",
        "initial.run: (absent) -> other",
        "initial.step: (absent) -> 5",
    ]
    with pytest.raises(InputError, match=r"num_steps: the run starts from step 5 of run 'other', and needs more .*5\)"):
        make_experiment(initial=start, num_steps=5)
    with pytest.raises(InputError, match="unknown key 'initial.run'"):
        override(plain, ["initial.run=other"])


def test_json_is_canonical(make_experiment: MakeExperiment) -> None:
    tree = json.loads(make_experiment().to_json())
    assert list(tree) == sorted(tree)
    assert tree["algorithm"]["kind"] == "maml" and tree["source"]["kind"] == "class_store"


def changed(experiment: Experiment, path: str, value: Any) -> str:
    tree = json.loads(experiment.to_json())
    *parents, last = path.split(".")
    node = tree
    for parent in parents:
        node = node[parent]
    node[last] = value
    return json.dumps(tree)


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("num_step", "num_steps"),
        ("optimizer.outer_lrr", "outer_lr"),
        ("algorithm.inner_step", "inner_steps"),
        ("model.hiden", "hidden"),
        ("source.rotation", "rotations"),
        ("evaluation.test_episode", "test_episodes"),
    ],
)
def test_unknown_keys_are_refused_with_the_nearest(path: str, near: str, make_experiment: MakeExperiment) -> None:
    last = path.rpartition(".")[2]
    with pytest.raises(InputError, match=rf"unknown key '[\w.]*{last}'. Did you mean '[\w.]*{near}'"):
        Experiment.from_json(changed(make_experiment(), path, 1))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("meta_batch_size", 0),
        ("num_steps", -1),
        ("chunk_size", 0),
        ("threads_per_worker", 0),
        ("seed", -1),
        ("seed", 2**64),
        ("episodes.ways", 1),
        ("optimizer.outer_lr", 0),
        ("optimizer.momentum", 1.5),
        ("algorithm.inner_lr", -0.5),
        ("algorithm.inner_steps", -3),
        ("algorithm.second_order", "maybe"),
        ("evaluation.test_episodes", 1),
        ("evaluation.every", -1),
        ("checkpoint.every", -2),
        ("precision.dtype", "float16"),
        ("name", "../up"),
        ("name", ""),
        ("reduction", "slow"),
        ("algorithm.batch_norm", "running"),
    ],
)
def test_out_of_range_names_the_field_and_the_value(path: str, value: Any, make_experiment: MakeExperiment) -> None:
    with pytest.raises(InputError) as caught:
        Experiment.from_json(changed(make_experiment(), path, value), where="experiment tiny")
    message = str(caught.value)
    assert message.startswith("experiment tiny: ")
    assert path.rpartition(".")[2] in message and repr(value) in message


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null"])
def test_what_is_no_experiment_at_all(text: str) -> None:
    with pytest.raises(InputError, match=r"somewhere\.json"):
        Experiment.from_json(text, where="somewhere.json")


@pytest.mark.parametrize("part", ["source", "model", "algorithm"])
def test_unknown_kinds(part: str, make_experiment: MakeExperiment) -> None:
    with pytest.raises(InputError, match=rf"unknown {part} 'nonsense'"):
        Experiment.from_json(changed(make_experiment(), f"{part}.kind", "nonsense"))
    with pytest.raises(InputError, match=rf"{part} must be an object with a 'kind', one of "):
        Experiment.from_json(changed(make_experiment(), part, 3))


def test_import_paths_need_trust_where_it_is_asked_for(make_experiment: MakeExperiment) -> None:
    text = changed(make_experiment(), "model", {"kind": "custom", "path": "torch.nn:Linear"})
    assert Experiment.from_json(text).model.kind == "custom"
    assert Experiment.from_json(text, trust=("torch",)).model.kind == "custom"
    with pytest.raises(InputError, match="refusing to import 'torch.nn:Linear'"):
        Experiment.from_json(text, trust=())
    text = changed(make_experiment(), "algorithm", {"kind": "torch.nn:Linear"})
    with pytest.raises(InputError, match="refusing to import 'torch.nn:Linear'"):
        Experiment.from_json(text, trust=())
    with pytest.raises(InputError, match="is not of type Algorithm"):
        Experiment.from_json(text)


def test_ways_of_training_and_judging(make_experiment: MakeExperiment) -> None:
    judged = Evaluation(episodes=EpisodeSpec(ways=2, shots=1, queries=1))
    with pytest.raises(InputError, match=r"cannot train at 3 ways .* be judged at 2"):
        make_experiment(evaluation=judged)
    experiment = make_experiment(evaluation=judged, algorithm=ProtoNet())
    assert experiment.eval_spec.ways == 2 and make_experiment().eval_spec.ways == 3


def test_protocol(make_experiment: MakeExperiment) -> None:
    assert make_experiment().protocol == "3-way 1-shot, 2 queries a class, transductive batch norm"
    steps = Evaluation(inner_steps=3)
    assert make_experiment(evaluation=steps).protocol.endswith("transductive batch norm, 3 inner steps")
    assert "steps" not in make_experiment(evaluation=steps, algorithm=ProtoNet(batch_norm="inductive")).protocol


def test_it_is_frozen(make_experiment: MakeExperiment) -> None:
    with pytest.raises(ValueError, match="frozen"):
        make_experiment().seed = 3  # type: ignore[misc]


class Hotter(Optimizer):
    temperature: float = 2.0


class Longer(Evaluation):
    pass


class Often(Checkpoint):
    pass


class Half(Precision):
    pass


class Shape(EpisodeSpec):
    pass


class Mine(Experiment):
    pass


@pytest.mark.parametrize(
    ("name", "part", "base"),
    [
        ("optimizer", Hotter(), "Optimizer"),
        ("evaluation", Longer(), "Evaluation"),
        ("checkpoint", Often(), "Checkpoint"),
        ("precision", Half(), "Precision"),
        ("episodes", Shape(ways=3, shots=1, queries=2), "EpisodeSpec"),
    ],
)
def test_a_subclass_of_a_part_is_refused_by_name(
    name: str, part: Config, base: str, make_experiment: MakeExperiment
) -> None:
    said = f"{name}: {__name__}:{type(part).__name__} is a subclass of {base}, and what it adds would be lost"
    with pytest.raises(InputError, match=said):
        make_experiment(**{name: part})


def test_a_subclass_inside_a_part_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=f"episodes: {__name__}:Shape is a subclass of EpisodeSpec"):
        Evaluation(episodes=Shape(ways=3, shots=1, queries=2))


def test_a_subclass_of_experiment_is_refused_by_name(make_experiment: MakeExperiment) -> None:
    experiment = make_experiment()
    fields = {name: getattr(experiment, name) for name in Experiment.model_fields}
    with pytest.raises(ValueError, match=f"{__name__}:Mine is a subclass of Experiment"):
        Mine(**fields)


class Unfaithful(ProtoNet):
    """JSON has a list for what was a tuple in a field that anything fits."""

    things: Any = ()


def test_a_field_that_json_changes_is_named(make_experiment: MakeExperiment) -> None:
    make_experiment(algorithm=Unfaithful(things=[1, 2])).require_faithful()
    with pytest.raises(InputError, match=r"algorithm\.things does not come back as it was from JSON"):
        make_experiment(algorithm=Unfaithful(things=(1, 2))).require_faithful()


def test_a_class_inside_a_function_is_refused_by_name(make_experiment: MakeExperiment) -> None:
    class Inner(ProtoNet):
        pass

    with pytest.raises(InputError, match=r"Inner' is found by its import path.* inside a function: move it to the top"):
        make_experiment(algorithm=Inner())


RANGE, META = EpisodeSpec(ways=(2, 3), shots=(1, 2), queries="rest"), EpisodeSpec.meta_dataset()


@pytest.mark.parametrize("spec", [RANGE, EpisodeSpec.meta_dataset(ways=(2, 5))])
def test_algorithms_of_fixed_ways_refuse_ranges_of_them(make_experiment: MakeExperiment, spec: EpisodeSpec) -> None:
    told = f"a maml learner is fixed to its ways, and cannot have {spec.ways_in_words}; these take any number of them: "
    for where, fields in (
        ("episodes", {"episodes": spec}),
        ("evaluation.episodes", {"evaluation": Evaluation(episodes=spec)}),
    ):
        with pytest.raises(InputError) as caught:
            make_experiment(**fields)
        assert f"{where}.ways: {told}" in str(caught.value)
    able = str(caught.value).partition(told)[2].split(", ")
    assert {"protonet", "proto_maml", "r2d2", "matchingnet"} <= set(able) and not {"maml", "cnp", "anil"} & set(able)
    make_experiment(episodes=replace(RANGE, ways=3), algorithm=MAML())


def test_an_experiment_of_ranges_is_json(make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(episodes=RANGE, algorithm=ProtoNet(), evaluation=Evaluation(episodes=META))
    assert Experiment.from_json(experiment.to_json()) == experiment
    experiment.require_faithful()
    tree = json.loads(experiment.to_json())
    assert tree["episodes"] == {"ways": [2, 3], "shots": [1, 2], "queries": "rest"}
    assert tree["evaluation"]["episodes"]["sampling"] == "meta-dataset"
    assert tree["source"] == {
        "kind": "class_store",
        **experiment.source.model_dump(exclude={"within_groups", "mean", "std"}),
    }
    assert experiment.protocol.startswith("Meta-Dataset's sampling: 5 to 50 ways")
    set_by_hand = override(
        make_experiment(algorithm=ProtoNet()),
        ["episodes.ways=2..3", "episodes.shots=[1,2]", "episodes.queries=rest"]
        + [
            f"evaluation.episodes.{key}"
            for key in ("sampling=meta-dataset", "ways=5..50", "shots=1..100", "queries=10")
        ],
    )
    assert (set_by_hand.episodes, set_by_hand.eval_spec) == (RANGE, META)
    grouped = override(experiment, ["source.within_groups=true"])
    assert json.loads(grouped.to_json())["source"]["within_groups"] is True
    assert grouped.protocol.endswith("up to 10 queries a class, classes of one group, inductive batch norm")
    assert UMTRA(source=grouped.source).drawn_together == "classes of one group" != experiment.source.drawn_together


def test_ways_of_ranges(make_experiment: MakeExperiment) -> None:
    with pytest.raises(InputError, match=r"episodes\.ways: .*these have at least 2 ways \(got 1\)"):
        make_experiment(episodes=replace(RANGE, ways=(1, 3)), algorithm=ProtoNet())
    with pytest.raises(InputError, match=r"regression tasks, and these have 1 way \(got 3\)"):
        make_experiment(source=FunctionFamily(), episodes=RANGE, algorithm=R2D2())
