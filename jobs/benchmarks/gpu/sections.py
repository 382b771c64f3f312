"""`SECTIONS` is the explicit dict of all there are, in the order in which they are run."""

from jobs.benchmarks.gpu.bits import BITS
from jobs.benchmarks.gpu.conformance import CONFORMANCE
from jobs.benchmarks.gpu.costs import COSTS
from jobs.benchmarks.gpu.kernels import KERNELS
from jobs.benchmarks.gpu.on_ray import RAY
from jobs.benchmarks.gpu.peers import PEERS
from jobs.benchmarks.gpu.section import Section
from jobs.benchmarks.gpu.training import TRAINING

SECTIONS: dict[str, Section] = {
    section.name: section for section in (CONFORMANCE, BITS, COSTS, KERNELS, PEERS, TRAINING, RAY)
}
DEFAULT = tuple(name for name in SECTIONS if name != RAY.name)
