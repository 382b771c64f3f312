"""How many kernels a step launches, and which take its time: by torch's profiler, in a process of its own.

Once a profiler has been there, launches may stay slower: so nothing is timed after it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import product
from typing import NamedTuple

from torch._C._autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from jobs.benchmarks.gpu.ceilings import Arithmetic
from jobs.benchmarks.gpu.costs import ALGORITHMS, Kind, chunk_size_of, given_to
from jobs.benchmarks.gpu.experiments import experiment_of, networks
from jobs.benchmarks.gpu.record import Values
from jobs.benchmarks.gpu.section import Case, Section, Setting
from metaray.episodes.tensors import chunks
from metaray.training.device import set_execution
from metaray.training.outer_loop import context_of, initial_state

ABOUT = """Kernels that the meta-gradient of one chunk launches (those of a meta-batch are as many times more as it \
has chunks), the time that the device was busy with them, and the one that took most of it: of one gradient, under \
torch's profiler, which itself slows launches down. On a CPU: operations, nested ones included."""
NAME_LENGTH = 60
CHUNKS: tuple[str, ...] = ("whole", "quarter")
PRECISIONS: tuple[Arithmetic, ...] = ("float32", "bfloat16")


class Launched(NamedTuple):
    """What ran on the device.

    Attributes:
        kernels: how many.
        busy_us: time that they took.
        costliest: name of the kernel that took most of it, all its launches together.
        share: of the time that it took.
    """

    kernels: int
    busy_us: float
    costliest: str
    share: float


def cases(setting: Setting) -> Iterator[Case]:
    """The whole meta-batch and a quarter of it, the most important first."""
    every = [Kind(*each) for each in product(("Conv4", "ResNet-12"), ALGORITHMS, CHUNKS, PRECISIONS)]
    for kind in every[:2] if setting.small else every:
        yield Case(kind.name, partial(kernels, kind, setting))


def kernels(kind: Kind, setting: Setting) -> Values:
    """The kernels of one chunk's gradient."""
    network = networks(setting)[kind.network]
    size, algorithm = chunk_size_of(kind, network), ALGORITHMS[kind.algorithm]
    experiment = experiment_of(setting, network, algorithm, chunk_size=size, dtype=kind.arithmetic)
    set_execution(experiment, setting.device)
    state = initial_state(experiment, setting.device)
    context = context_of(experiment, state.network, training=True).with_batched(size > 1)
    batch = given_to(network, setting)[0].batch
    (chunk,) = next(chunks(batch, size, setting.device, experiment.source, "meta-train"))
    algorithm.meta_gradient(state.meta, chunk, context)  # loads what is loaded at first use
    setting.synchronize()
    activity = ProfilerActivity.CUDA if setting.on_gpu else ProfilerActivity.CPU
    with profile(activities=[activity]) as profiler:
        algorithm.meta_gradient(state.meta, chunk, context)
        setting.synchronize()
    found = launched(profiler.events() or [], DeviceType.CUDA if setting.on_gpu else DeviceType.CPU)
    return {
        "kernels" if setting.on_gpu else "operations": found.kernels,
        "busy ms": found.busy_us / 1e3,
        "costliest": found.costliest[:NAME_LENGTH].replace("|", "/"),
        "its share": found.share,
    }


def launched(events: Iterable[FunctionEvent], where: DeviceType) -> Launched:
    """What a profiler's events say of one kind of device; copies and fills are no kernels."""
    times: Counter[str] = Counter()
    count = 0
    for event in events:
        if event.device_type == where and not event.name.startswith(("Memcpy", "Memset")):
            times[event.name] += event.time_range.elapsed_us()
            count += 1
    busy_us = float(sum(times.values()))
    name, most_us = max(times.items(), key=lambda item: item[1], default=("", 0.0))
    return Launched(count, busy_us, name, most_us / busy_us if busy_us else 0.0)


SECTION = Section("kernels", ABOUT, cases)
