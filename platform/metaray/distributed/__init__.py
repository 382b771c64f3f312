"""All that knows Ray: sampler actors, Train workers, the coordinator, the supervisor, Tune's trials."""
