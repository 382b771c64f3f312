"""Import paths: within metaray always, elsewhere only with trust."""

import subprocess
import sys
from pathlib import Path

import pytest
from torch import Tensor

from metaray.algorithms import ALGORITHMS, MAML, Algorithm, ProtoNet
from metaray.algorithms.context import Context, Tensors
from metaray.episodes.tensors import Examples
from metaray.errors import InputError
from metaray.imports import TRUST_ALL, dump_kind, import_folders, import_from, parse_kind, resolve, where_found


class Own(ProtoNet):
    """An algorithm from outside metaray."""

    sharpness: float = 1.0


class Unfinished(Algorithm):
    """One that only adapts."""

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        return meta


PATH = f"{__name__}:Own"


@pytest.mark.parametrize("trust", [(), ("elsewhere",)])
def test_metaray_itself_is_always_trusted(trust: tuple[str, ...]) -> None:
    assert resolve("metaray.algorithms.maml:MAML", trust=trust) is MAML


@pytest.mark.parametrize("path", ["os:system", "metaray_evil.net:Net", "metarays:Net", "os.metaray:Net"])
def test_the_rest_is_not(path: str) -> None:
    package = path.partition(":")[0].partition(".")[0]
    with pytest.raises(InputError, match=rf"refusing to import '{path}'.*trust=\['{package}'\]"):
        resolve(path, trust=("metaray", "another"))


def test_trust_is_by_package() -> None:
    assert resolve("os.path:join", trust=("os",)) is resolve("os.path:join", trust=(TRUST_ALL,))


def test_a_refused_module_is_not_even_imported(tmp_path: Path) -> None:
    (tmp_path / "side_effect.py").write_text("raise SystemExit('imported')")
    code = (
        "from metaray.errors import InputError\n"
        "from metaray.imports import resolve\n"
        "try:\n    resolve('side_effect:Net', trust=())\n"
        "except InputError:\n    print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "refused\n", done.stderr


@pytest.mark.parametrize("path", ["", "metaray", ":MAML", ".models:MLP", "metaray.algorithms:", "metaray.algorithms"])
def test_malformed_paths(path: str) -> None:
    with pytest.raises(InputError, match="is not an import path; write it as 'package.module:Name'"):
        resolve(path, trust=(TRUST_ALL,))


def test_paths_that_lead_nowhere() -> None:
    with pytest.raises(InputError, match="cannot import 'metaray.algoritms' "):
        resolve("metaray.algoritms:MAML", trust=())
    with pytest.raises(InputError, match="unknown name in metaray.algorithms 'MAMML'. Did you mean 'MAML'"):
        resolve("metaray.algorithms:MAMML", trust=())


def test_kinds_from_elsewhere_round_trip() -> None:
    tree = dump_kind(Own(sharpness=2.0), ALGORITHMS)
    inherited = {"batch_norm": "inductive", "temperature": None, "learned_scale": False}
    assert tree == {"kind": PATH, **inherited, "sharpness": 2.0}
    assert parse_kind(tree, ALGORITHMS, Algorithm, what="algorithm") == Own(sharpness=2.0)
    with pytest.raises(InputError, match="refusing to import"):
        parse_kind(tree, ALGORITHMS, Algorithm, what="algorithm", trust=())


def test_a_class_that_lacks_methods() -> None:
    with pytest.raises(InputError, match="test_imports:Unfinished' does not define predict$"):
        parse_kind({"kind": f"{__name__}:Unfinished"}, ALGORITHMS, Algorithm, what="algorithm")


def test_instances_pass_through() -> None:
    own = Own()
    assert parse_kind(own, ALGORITHMS, Algorithm, what="algorithm", trust=()) is own


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"kind": "mamml"},
            "unknown algorithm 'mamml'. Did you mean 'maml'\\? Known: .*maml, .*protonet",
        ),
        ({"inner_lr": 0.1}, "algorithm must be an object with a 'kind', one of .*maml, .*protonet"),
        ({"kind": 3}, "must be an object with a 'kind'"),
        (None, "must be an object with a 'kind'"),
        ({"kind": "metaray.models:MLP"}, "'metaray.models:MLP' is not of type Algorithm"),
        ({"kind": "maml", "inner_lrr": 1}, "algorithm maml: unknown key 'inner_lrr'. Did you mean 'inner_lr'"),
        ({"kind": "maml", "inner_steps": -1}, r"algorithm maml: inner_steps: .*\(got -1\)"),
    ],
)
def test_what_is_refused(value: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_kind(value, ALGORITHMS, Algorithm, what="algorithm")


def test_what_metaray_itself_imported_is_not_metarays_own() -> None:
    with pytest.raises(InputError, match="it comes from pathlib"):
        resolve("metaray.records.storage:Path", trust=["*"])


def test_folders_to_import_from_hide_no_module_of_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "colorsys.py").write_text("raise SystemExit('imported')")
    (tmp_path / "only_here.py").write_text("class Net:\n    pass\n")
    import_from(tmp_path)
    import_from(tmp_path)
    assert sys.path.count(str(tmp_path)) == 1
    assert str(tmp_path) in import_folders()
    assert resolve("only_here:Net", trust=("only_here",)).__name__ == "Net"
    assert resolve("colorsys:rgb_to_hls", trust=("colorsys",)).__module__ == "colorsys"
    monkeypatch.delitem(sys.modules, "only_here")
    sys.path.remove(str(tmp_path))
    assert str(tmp_path) not in import_folders()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_module_at_all", "No module named 'no_such_module_at_all'"),
        ("x = {}['b']", "broken_on_import.py:1: in <module>\n    x = {}['b']\nE   KeyError: 'b'"),
        ("raise SystemExit(3)", "broken_on_import.py:1: in <module>\n    raise SystemExit(3)\nE   SystemExit: 3"),
        ("x = (", "broken_on_import.py:1\n    x = (\nE   SyntaxError: '(' was never closed"),
    ],
)
def test_a_module_that_cannot_be_imported_says_the_users_own_line(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "broken_on_import.py").write_text(text)
    with pytest.raises(InputError) as refused:
        resolve("broken_on_import:Net", trust=(TRUST_ALL,))
    assert str(refused.value).startswith("cannot import 'broken_on_import' (for 'broken_on_import:Net'):")
    assert said in str(refused.value)


def test_a_class_without_a_kind_is_refused_by_name() -> None:
    with pytest.raises(
        InputError, match=r"Kindless' does not say its kind.*`kind: ClassVar\[str\] = 'kindless'` in it"
    ):
        parse_kind({"kind": f"{__name__}:Kindless"}, ALGORITHMS, Algorithm, what="algorithm")


class Kindless(Unfinished):
    """An algorithm that is whole, but has no name."""

    def predict(self, meta: Tensors, adapted: Tensors, x: Tensor, context: Context) -> Tensor:
        return x


def test_json_that_names_a_recipes_neighbour_is_told_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `metaray tune --apply best.json` says is a command that works."""
    (tmp_path / "jobs" / "where_package").mkdir(parents=True)
    (tmp_path / "jobs" / "where_package" / "__init__.py").write_text("class Net: ...")
    (tmp_path / "jobs" / "where_nets.py").write_text("class Net: ...")
    (tmp_path / "where_here.py").write_text("class Net: ...")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    import_from(tmp_path / "jobs", tmp_path)
    for name in ("where_nets", "where_package", "where_here"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        assert resolve(f"{name}:Net", trust=(TRUST_ALL,)).__name__ == "Net"
        prefix = where_found({"model": {"kind": "custom", "path": f"{name}:Net"}, "parts": [{"kind": "mlp"}]})
        assert prefix == ("" if name == "where_here" else "PYTHONPATH=jobs ")
        code = f"import {name}"
        done = subprocess.run(f"{prefix}{sys.executable} -c {code!r}", shell=True, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert where_found({"algorithm": {"kind": "metaray.algorithms:MAML"}, "source": {"path": "s3://a:b@c"}}) == ""
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert where_found({"path": "where_nets:Net"}) == f"PYTHONPATH={tmp_path}/jobs "
