"""JAX on the CPU, one task after the other within what is compiled: jit(grad(lax.map))."""

from functools import partial

from jobs.benchmarks.peers import in_jax

PACKAGES = in_jax.PACKAGES
build = partial(in_jax.build, together=False)
