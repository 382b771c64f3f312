"""How much memory a computation takes at its height: the tensors that live, counted as they come and go."""

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Counts within its block the bytes of all tensors that operations return, until nobody holds them any more.

    What kernels take and give back inside one operation is not seen, nor what lived before the block.

    Example:
        >>> with LiveMemory() as memory:
        ...     y = torch.ones(1000) + 1
        >>> memory.most_bytes, memory.now_bytes
        (8000, 4000)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now_bytes = 0
        """Size of what lives now."""
        self.most_bytes = 0
        """Size of what lived at the height."""
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, and count what it returns."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        place = storage._cdata
        if place in self._sizes:
            return  # a view, or an operation in place
        self._sizes[place] = storage.nbytes()
        self.now_bytes += storage.nbytes()
        self.most_bytes = max(self.most_bytes, self.now_bytes)
        weakref.finalize(storage, self._forget, place).atexit = False

    def _forget(self, place: int) -> None:
        self.now_bytes -= self._sizes.pop(place)
