"""How a chunk's meta-gradient is computed: line by line, batched, compiled, or as a graph. Algorithms don't see it."""
