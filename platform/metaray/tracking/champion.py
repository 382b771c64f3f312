"""The `@champion` alias passed on, by several processes at once on whatever machines.

A decision compares a version with the champion, which may take minutes. It is acted on in a short turn, and only if the
champion is still the one that was compared with; otherwise it is made anew. So the alias moves only to a version that
was found better than the one it leaves.

In its turn a version is numbered (`champion.number`: the first champion, the second, ...) before it gets the alias, and
afterwards looks for another of the same or a higher number. There is one only if this process slept so long in its turn
that it was taken for dead: then the alias goes back to that version, and the decision is made anew.
"""

from collections.abc import Callable

from metaray.tracking.promotion import Decision
from metaray.tracking.registry import CHAMPION, ModelVersion, champion, find_version, set_alias, show, tag_version
from metaray.tracking.registry_turns import turn
from metaray.tracking.server import MlflowServer

NUMBER = "champion.number"
DECISION = "champion.decision"


def settle(
    server: MlflowServer,
    name: str,
    version: int,
    judge: Callable[[ModelVersion | None], Decision],
    *,
    say: Callable[[str], None] = lambda text: None,
) -> Decision:
    """Decide on a registered version, and make it @champion if the decision says so.

    Args:
        server: MLflow server with the registry.
        name: Name of the registered model.
        version: Number of the new version.
        judge: Function that decides, given the present champion; it is called again if another process came first.
        say: Function that is called with a message if other processes come first.
    """
    while True:
        present = champion(server, name)
        if present is not None and present.version == version:
            return Decision(True, "it is the champion")
        decision = judge(present)
        tag_version(server, name, version, {DECISION: f"{'yes' if decision.promote else 'no'}, {decision.reason}"})
        if not decision.promote:
            return decision
        if crown(server, name, version, over=None if present is None else present.version, say=say):
            return decision


def crown(
    server: MlflowServer, name: str, version: int, *, over: int | None, say: Callable[[str], None] = lambda text: None
) -> bool:
    """Make a version champion in the place of version `over` (None: of none); False if that is not the champion."""
    with turn(server, name, say=say):
        number = 1 + max(_numbers(server, name).values(), default=0)
        # Read after the numbers: who is crowned between the two has one that is seen below.
        if show(server, name).aliases.get(CHAMPION) != over:
            return False
        tag_version(server, name, version, {NUMBER: str(number)})
        set_alias(server, name, version)
        rivals = {v: n for v, n in _numbers(server, name).items() if n >= number and v != version}
        if not rivals:
            return True
        server.client.delete_model_version_tag(name, str(version), NUMBER)
        set_alias(server, name, max(rivals, key=lambda rival: (rivals[rival], rival)))
        return False


def crown_by_hand(server: MlflowServer, name: str, version: int) -> ModelVersion:
    """Make a version @champion whatever the present one is, without a race against other decisions.

    Raises:
        InputError: If the model or the version does not exist.
    """
    find_version(server, name, version)
    while not crown(server, name, version, over=show(server, name).aliases.get(CHAMPION)):
        pass
    tag_version(server, name, version, {DECISION: "yes, promoted by hand"})
    return find_version(server, name, version)


def _numbers(server: MlflowServer, name: str) -> dict[int, int]:
    """The numbers of those versions that are or were champion, by version."""
    return {v.version: int(v.tags[NUMBER]) for v in show(server, name).versions if v.tags.get(NUMBER, "").isdecimal()}
