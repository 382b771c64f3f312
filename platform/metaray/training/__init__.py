"""Meta-training: the experiment, the outer loop, its evaluation and checkpoints, and the Ray Train workers."""
