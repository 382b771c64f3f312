"""An algorithm of a user's own that fails in the middle of training."""

from metaray.algorithms import MAML
from metaray.algorithms.context import Context, Tensors
from metaray.episodes.tensors import Examples


class Broken(MAML):
    """MAML, but in the fourth step."""

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        """Looks for a parameter that is not there."""
        return {"b": meta["b"]} if context.training and context.step == 3 else super().adapt(meta, support, context)
