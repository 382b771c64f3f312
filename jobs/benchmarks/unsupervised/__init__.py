"""Meta-training without labels on Omniglot: embeddings, clusters, tasks, and what the papers report."""
