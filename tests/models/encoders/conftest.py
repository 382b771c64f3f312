"""The implementations that encoders are compared with, where they are installed (the extra "references")."""

import importlib
from collections.abc import Iterator
from contextlib import suppress

import pytest
import torch


@pytest.fixture(scope="session")
def operators() -> Iterator[None]:
    """Torchvision can be imported, if it is there, even where its compiled operators are for another machine.

    Models need none of these, but transformers import it, too; two are to be known by name.
    """
    library = None
    try:
        importlib.import_module("torchvision")
    except ImportError:
        pass
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            with suppress(RuntimeError):
                library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")
    yield
    del library
