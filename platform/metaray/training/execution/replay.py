"""A function that is recorded once and then replayed: on a GPU as one graph, launched whole instead of by thousands."""

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

Function = Callable[..., Sequence[Tensor]]
"""A function of flat tensors. What it does must be the same operations each time, whatever the numbers: it is run by
Python only while it is recorded. It must not ask for values, nor touch a generator but by drawing from it."""

WARM_UP = 3
"""Runs before a recording: libraries load, choose and allocate at first use, which cannot be recorded."""
MOST_KEPT = 4
"""Recordings a function; each keeps the memory of all that it computes. The one that was longest unused makes room."""


class CannotRecord(RuntimeError):
    """A function does something that cannot be recorded, such as asking the device for a value."""


class Recording(ABC):
    """A function on tensors that stay where they are.

    Attributes:
        outputs: What it gave; overwritten by each replay.
    """

    outputs: tuple[Tensor, ...]

    @abstractmethod
    def replay(self) -> None:
        """Compute the outputs of what the inputs hold now."""


Recorder = Callable[[Function, Sequence[Tensor]], Recording]


class CudaGraph(Recording):
    """A CUDA graph. Random numbers come from the device's own generator, as it is seeded when it is replayed.

    Args:
        function: Function to record.
        inputs: Tensors on one GPU; it is replayed on what is written into them.

    Raises:
        RuntimeError: If something in it cannot be recorded.
    """

    def __init__(self, function: Function, inputs: Sequence[Tensor]) -> None:
        device = inputs[0].device
        computing, beside = torch.cuda.current_stream(device), torch.cuda.Stream(device)
        beside.wait_stream(computing)
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP):
                function(*inputs)
        computing.wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        # The device's default generator takes part in every graph; its seed and place are read at each replay.
        with torch.cuda.graph(self._graph, stream=beside):
            self.outputs = tuple(function(*inputs))

    def replay(self) -> None:
        """Launch the graph."""
        self._graph.replay()


class Rerun(Recording):
    """Runs the function again, into the same outputs: shows on a CPU all that is not the graph itself.

    Args:
        function: Function to record.
        inputs: It is run again on what is written into them.
    """

    def __init__(self, function: Function, inputs: Sequence[Tensor]) -> None:
        self._function, self._inputs = function, inputs
        for _ in range(WARM_UP):
            function(*inputs)
        self.outputs = tuple(one.detach().clone() for one in function(*inputs))

    def replay(self) -> None:
        """Run it."""
        for kept, new in zip(self.outputs, self._function(*self._inputs), strict=True):
            kept.copy_(new.detach())


class Replay:
    """A function of flat tensors, recorded for each shape of them, that computes by being replayed.

    Example: `gradient = Replay(function, [*parameters, x, y], fixed=len(parameters))`, then at each step
    `torch.manual_seed(seed); gradient(*parameters, x, y)`.

    Args:
        function: Function to record.
        examples: What it is recorded with first, now, so that what cannot be recorded is known before it counts.
        fixed: How many inputs, the first ones, are read where they are, not copied: parameters that are stepped in
            place. A call with others than were recorded makes a recording of its own.
        hand_out: Give the recording's own outputs, which the next call overwrites, instead of copies.
        recorder: Makes recordings.

    Raises:
        CannotRecord: If the function cannot be recorded.
    """

    def __init__(
        self,
        function: Function,
        examples: Sequence[Tensor],
        *,
        fixed: int = 0,
        hand_out: bool = False,
        recorder: Recorder = CudaGraph,
    ) -> None:
        self._function, self._fixed, self._hand_out, self._recorder = function, fixed, hand_out, recorder
        self._known: OrderedDict[Hashable, tuple[list[Tensor], Recording]] = OrderedDict()
        self._recorded(examples)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What the function gives for these.

        Raises:
            CannotRecord: If they are of a new shape, and the function cannot be recorded with them.
        """
        buffers, recording = self._recorded(inputs)
        _copy(inputs[self._fixed :], buffers)
        recording.replay()
        return recording.outputs if self._hand_out else _clones(recording.outputs)

    @property
    def recordings(self) -> int:
        """How many are kept."""
        return len(self._known)

    def _recorded(self, inputs: Sequence[Tensor]) -> tuple[list[Tensor], Recording]:
        """The recording for such inputs, and the buffers that those which are copied go into."""
        key = self._key(inputs)
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        while len(self._known) >= MOST_KEPT:
            self._known.popitem(last=False)
        fixed = [_leaf(one.detach(), one) for one in inputs[: self._fixed]]
        buffers = [_leaf(torch.empty_like(one), one) for one in inputs[self._fixed :]]
        _copy(inputs[self._fixed :], buffers)
        gpus = sorted({one.device.index for one in inputs if one.device.type == "cuda"})
        try:
            # Recording draws random numbers, too; the caller has seeded for the replay.
            with torch.random.fork_rng(devices=gpus):
                recording = self._recorder(self._function, [*fixed, *buffers])
        except RuntimeError as error:
            raise CannotRecord(str(error).partition("\n")[0]) from error
        self._known[key] = buffers, recording
        return self._known[key]

    def _key(self, inputs: Sequence[Tensor]) -> Hashable:
        """What a recording depends on besides the numbers in its inputs."""
        shapes = [(one.shape, one.stride(), one.dtype, one.device, one.requires_grad) for one in inputs]
        places = [one.data_ptr() for one in inputs[: self._fixed]]
        return tuple(shapes), tuple(places), torch.is_grad_enabled()


def _leaf(tensor: Tensor, like: Tensor) -> Tensor:
    return tensor.requires_grad_(like.requires_grad)


def _copy(given: Sequence[Tensor], buffers: Sequence[Tensor]) -> None:
    """Copy into the buffers, with a kernel or two for all that are alike."""
    alike: dict[Hashable, list[tuple[Tensor, Tensor]]] = {}
    for one, buffer in zip(given, buffers, strict=True):
        alike.setdefault((one.dtype, one.device), []).append((buffer.detach(), one.detach()))
    for pairs in alike.values():
        torch._foreach_copy_([buffer for buffer, _ in pairs], [one for _, one in pairs], non_blocking=True)


def _clones(outputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    copies = [torch.empty_like(one) for one in outputs]
    _copy(outputs, copies)
    return tuple(copies)
