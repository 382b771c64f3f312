"""Reports: what a run, a learner, a search or a comparison has to say, as one HTML file that needs nothing else."""
