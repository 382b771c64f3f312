"""An algorithm that takes its process with it, as one does that takes too much memory."""

import os
from pathlib import Path
from typing import ClassVar

from metaray.algorithms import MAML
from metaray.algorithms.context import Context, Tensors
from metaray.episodes.tensors import Examples


class Dying(MAML):
    """MAML, but at a rate of 2 it dies, except in the process whose id the file `driver` holds."""

    kind: ClassVar[str] = "dying"

    def adapt(self, meta: Tensors, support: Examples, context: Context) -> Tensors:
        if self.inner_lr == 2.0 and str(os.getpid()) != Path("driver").read_text():
            with Path("deaths").open("a") as file:
                file.write("x")
            os._exit(137)
        return super().adapt(meta, support, context)
