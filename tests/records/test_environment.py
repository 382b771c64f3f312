"""What the last bits of a result may depend on."""

import pytest
import torch

from metaray.records.environment import CPU_VARIABLES, UNSET, changes, environment


def test_nothing_changes_by_itself() -> None:
    assert environment() == environment() and changes(environment(), environment()) == []
    assert {"torch", "numpy", "python", "cpu", "cpu_capability", "device", "kernels"} <= environment().keys()


@pytest.mark.parametrize("name", CPU_VARIABLES)
def test_what_makes_a_library_choose_other_kernels_is_said(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(name, raising=False)
    before = environment()
    monkeypatch.setenv(name, "AVX2")
    assert changes(before, environment()) == [f"{name} {UNSET} -> AVX2"]
    assert changes(environment(), before) == [f"{name} AVX2 -> {UNSET}"]


def test_settings_made_in_python_are_said() -> None:
    before = environment()
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        torch._C._set_mkldnn_enabled(False)
        said = " ".join(changes(before, environment()))
    finally:
        torch.set_float32_matmul_precision(precision)
        torch._C._set_mkldnn_enabled(True)
    assert "mkldnn on" in said and "-> off" in said and f"float32 {precision} -> medium" in said


def test_what_an_older_checkpoint_does_not_say_is_no_alarm() -> None:
    old = {key: environment()[key] for key in ("torch", "numpy", "python", "device", "cpu_capability", "cpu")}
    assert changes(old, environment()) == [] == changes({}, environment())
    assert changes({**old, "cpu": "abacus"}, environment()) == [f"cpu abacus -> {environment()['cpu']}"]


def test_backends_that_were_told_to_differ_are_no_failure() -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "tf32"
        assert environment()["float32"] == "by backend"
    finally:
        matmul.fp32_precision = before
    assert environment()["float32"] == "highest"
