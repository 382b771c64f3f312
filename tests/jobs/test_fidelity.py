"""The fidelity benchmark: its plans are valid, its page holds what the records say."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from jobs.benchmarks.fidelity import PUBLISHED, TRAINED, planned, published, run_one
from jobs.benchmarks.fidelity_page import page
from jobs.family import PLANS, omniglot
from metaray.experiment.experiment import Experiment


@pytest.mark.parametrize("kind", TRAINED)
@pytest.mark.parametrize("shots", [1, 5])
def test_every_algorithm_has_a_valid_plan(kind: str, shots: int) -> None:
    experiment = omniglot(kind, shots, num_steps=1000)
    assert experiment.algorithm.kind == kind and experiment.eval_spec.shots == experiment.eval_spec.queries == shots
    assert experiment.eval_spec.ways == 5 and experiment.evaluation.test_episodes == 1000
    assert Experiment.from_json(experiment.to_json()) == experiment


def test_plans_and_papers_are_of_algorithms_that_exist() -> None:
    assert PLANS.keys() <= set(TRAINED) and PUBLISHED.keys() <= set(TRAINED)


def test_a_run_is_judged_at_even_distances() -> None:
    experiment = planned(omniglot("maml"), 803)
    assert (experiment.num_steps, experiment.evaluation.every) == (803, 101)
    assert planned(omniglot("maml"), 3).evaluation.every == 1


TABLE = """method,kind,backbone,omniglot_5w1s,omniglot_5w5s,source
MAML,open-source rerun,Conv4,98.1,99.8,somebody
MAML,paper,Conv4,98.7±0.4,99.9±0.1,Finn 2017 arXiv:1703.03400
ANIL,paper,Conv4,,,Raghu 2020
"""


def test_published_numbers(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    path.write_text(TABLE)
    assert published(path, "maml", 5) == {"value": "99.9±0.1", "source": "Finn 2017 arXiv:1703.03400"}
    assert published(path, "maml", 1) == {"value": "98.7±0.4", "source": "Finn 2017 arXiv:1703.03400"}
    assert published(path, "anil", 5) is published(path, "cnp", 5) is published(None, "maml", 5) is None


def estimate(mean: float) -> dict[str, Any]:
    return {"mean": mean, "half_width": 0.01, "episodes": 1000}


def record(kind: str, **changes: Any) -> dict[str, Any]:
    found = {
        "algorithm": kind,
        "shots": 5,
        "meta_test": estimate(0.98),
        "before_adaptation": None,
        "before_training": estimate(0.4),
        "nearest_neighbor": estimate(0.65),
        "protocol": "5-way 5-shot",
        "curve": [[10, 0.8], [20, 0.9], [30, 0.95], [40, 0.96]],
        "paper": None,
        "episodes": 12345,
        "core_minutes": 11.98,
        "s_per_1000_episodes": 34.5,
        "peak_bytes": 100 * 2**20,
        "device": "CPU",
        "torch": "2.13.0",
        "fingerprint": "abc",
        "seed": 0,
        "commit": "0123456789",
        "dirty": "false",
        "command": f"python ... {kind}",
    }
    return found | changes


def test_the_page(tmp_path: Path) -> None:
    (tmp_path / "fidelity").mkdir()
    paper = {"value": "99.9±0.1", "source": "Finn 2017 arXiv:1703.03400"}
    records = [
        record("protonet"),
        record("maml", paper=paper, before_adaptation=estimate(0.2), dirty="true"),
        record("maml", shots=1, curve=[[10, 0.9], [20, 0.9]]),
    ]
    page(records, tmp_path)
    text = (tmp_path / "fidelity.md").read_text()
    five, one = text.split("## 5-way 1-shot")
    lines = [line for line in five.splitlines() if line.startswith(("| maml", "| protonet"))]
    assert lines[0].startswith(
        "| maml | 98.00 ± 1.00 | 12,345 episodes, 12.0 core minutes | 99.9±0.1 (Finn 2017) | -1.90 | not run | "
        "20.00 ± 1.00 | 90.0, 95.0, 96.0 | yes | 34.5 |"
    )
    assert lines[1].startswith(
        "| protonet | 98.00 ± 1.00 | 12,345 episodes, 12.0 core minutes | - | - | not run | - |"
    ) and lines[0].endswith("| 0123456 + |")
    assert "**No run on a GPU has been made**" in text
    assert "| no |" in one and "| protonet" not in one and "65.00 ± 1.00" in one and "Not run: fomaml, " in one
    assert (tmp_path / "fidelity" / "curves-5shot.png").read_bytes().startswith(b"\x89PNG")


def test_what_a_gpu_reached_stands_beside_it(tmp_path: Path) -> None:
    (tmp_path / "fidelity").mkdir()
    page([record("maml"), record("maml", device="NVIDIA X", episodes=480000, meta_test=estimate(0.99))], tmp_path)
    text = (tmp_path / "fidelity.md").read_text()
    assert "| 99.00 ± 1.00; 480,000 episodes, 12.0 minutes of NVIDIA X |" in text and "| maml | 98.00 ± 1.00 |" in text
    assert "No run on a GPU has been made" not in text and text.count("| maml |") == 1


def test_a_whole_run(tmp_path: Path, tiny_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tiny(kind: str, shots: int, **fields: Any) -> Experiment:
        fields.pop("store")
        experiment = omniglot(kind, shots, store=str(tiny_store), **fields)
        tree = experiment.model_dump(mode="json")
        tree["source"] |= {"split": "default", "rotations": False}
        tree["evaluation"] |= {"val_episodes": 2, "test_episodes": 3}
        tree["model"] = {"kind": "mlp", "hidden": [4]}
        return Experiment.from_json(json.dumps(tree))

    monkeypatch.setattr("jobs.benchmarks.fidelity.omniglot", tiny)
    monkeypatch.setattr("jobs.benchmarks.fidelity.TIMED_S", 0.1)
    (tmp_path / "fidelity").mkdir()
    options = argparse.Namespace(
        store=str(tiny_store), steps=3, minutes=6.0, workers=0, seed=2, device="cpu", published=None, out=tmp_path
    )
    found = json.loads(json.dumps(run_one(options, "maml", 1)))
    assert found["episodes"] == 3 * omniglot("maml").meta_batch_size and [step for step, _ in found["curve"]] == [
        1,
        2,
        3,
    ]
    assert found["peak_bytes"] > 2**20 and found["s_per_1000_episodes"] > 0
    assert "--steps 3 --seed 2" in found["command"] and str(tiny_store.parent) not in found["command"]
    page([found], tmp_path)
    assert "| maml |" in (tmp_path / "fidelity.md").read_text()
