"""Episodes: what one task's support and query are, how they are sampled, and how they reach a trainer."""
