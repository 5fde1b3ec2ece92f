"""A real Slurm on one Debian machine, to test on: `python -m tests.slurm.testbed up`."""
