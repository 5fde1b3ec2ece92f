"""Running the workflow on Slurm: the profile, what watches over it, and a testbed."""
