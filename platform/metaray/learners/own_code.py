"""The code of a user's own that a learner names: its packages, and the digests by which it can be trusted."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from metaray.algorithms import ALGORITHMS
from metaray.algorithms.algorithm import Algorithm
from metaray.data.preprocessing import PREPROCESSINGS, Preprocessing
from metaray.errors import InputError
from metaray.imports import dump_kind, paths_in
from metaray.models import MODELS
from metaray.models.model import Model
from metaray.tasks import TASK_KINDS, TaskKind
from metaray.trust import Untrusted, code_sha256, packages_in, require_trusted, trust_setting


def parts_to_json(algorithm: Algorithm, model: Model, preprocessing: Preprocessing, task: TaskKind) -> dict[str, Any]:
    """The parts of a learner in JSON types, as in the learner's description."""
    return {
        "algorithm": dump_kind(algorithm, ALGORITHMS, every_field=False),
        "model": dump_kind(model, MODELS, every_field=False),
        "preprocessing": dump_kind(preprocessing, PREPROCESSINGS),
        "task": dump_kind(task, TASK_KINDS),
    }


def paths_named(description: Mapping[str, Any]) -> list[str]:
    """The import paths in a learner's description."""
    names = ("algorithm", "model", "preprocessing", "task")
    return [path for name in names for path in paths_in(description.get(name))]


def packages_named(description: Mapping[str, Any]) -> tuple[str, ...]:
    """The packages besides metaray that a learner's description leads to, sorted."""
    return packages_in(paths_named(description))


def require_trusted_code(description: Mapping[str, Any], trust: Sequence[str], where: str) -> dict[str, str]:
    """Check that all code that a learner leads to is trusted; returns the digests that the learner records.

    Raises:
        Untrusted: If a package is not trusted; the message says which, with the recorded digests.
        InputError: If `require_trusted` raises it, or a recorded digest is invalid.
    """
    code = parse_own_code(description, where)
    for path in paths_named(description):
        try:
            require_trusted(path, trust)
        except Untrusted:
            named = {name: code.get(name, "") for name in packages_named(description)}
            raise Untrusted(path, trust_setting(named)) from None
    return code


def own_code(description: Mapping[str, Any], known: Mapping[str, str]) -> dict[str, str]:
    """The digest of each package of the user's own: the `known` one, else that of the code found here.

    The digest of a package without Python files is empty.
    """
    return {name: known.get(name) or code_sha256(name) or "" for name in packages_named(description)}


def parse_own_code(description: Mapping[str, Any], where: str) -> dict[str, str]:
    """The digests recorded in a description; empty for learners from before they were recorded.

    Raises:
        InputError: If they are not digests.
    """
    found = description.get("code", {})
    if not isinstance(found, dict) or not all(map(_is_digest, found, found.values())):
        raise InputError(f"{where}: code must be the SHA-256 of each package (got {found!r})")
    return found


def own_code_told(code: Mapping[str, str]) -> str:
    """Instructions for loading a learner's own code with MLflow, given the digest of each package."""
    names = ", ".join(code)
    return (
        f"Its network or algorithm is code of one's own, which is not in this model: {names}. Whatever loads or serves "
        f"it (mlflow.pyfunc.load_model, mlflow models serve) needs that package installed or on PYTHONPATH, and in its "
        f"environment {trust_setting(code)} (the digest is of the package's Python files when the learner was made; "
        f"{trust_setting(dict.fromkeys(code, ''))} trusts whatever is found under that name). In Python: "
        f"metaray.load(..., trust={sorted(code)})."
    )


def _is_digest(package: str, digest: object) -> bool:
    return package.isidentifier() and isinstance(digest, str) and re.fullmatch("([0-9a-f]{64})?", digest) is not None
