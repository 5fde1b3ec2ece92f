"""`python -m cluster.testbed up|down|status`, or `run COMMAND...`: up, the command, down."""

import argparse
import subprocess
import sys

from cluster.testbed import machine, slurm
from reid.errors import UserError


def main() -> int:
    """Run one verb; 0, the code of the command, or 1 after one line that says why not."""
    parser = argparse.ArgumentParser(prog="python -m cluster.testbed", description=slurm.__doc__)
    parser.add_argument("verb", choices=("up", "down", "status", "run"))
    parser.add_argument("command", nargs=argparse.REMAINDER, help="of `run`")
    arguments = parser.parse_args()
    verb: str = arguments.verb
    if (verb == "run") != bool(arguments.command):
        parser.error("`run`, and only `run`, takes a command")
    try:
        if verb == "up":
            slurm.up()
        elif verb == "down":
            slurm.down()
        elif verb == "run":
            return _run(arguments.command)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    running = slurm.is_up()
    print(f"the testbed is {'up: try sinfo' if running else 'down'}")
    return 0


def _run(command: list[str]) -> int:
    """Run a command beside the testbed, which is left as it was found.

    Where no testbed can be, the command runs without: it knows what to skip.
    """
    if why := machine.lacks() or machine.foreign_slurm(slurm.HOME):
        print(f"no testbed: {why}", file=sys.stderr)
        return subprocess.run(command).returncode
    was_up = slurm.is_up()
    slurm.up()
    try:
        return subprocess.run(command).returncode
    finally:
        if not was_up:
            slurm.down()


if __name__ == "__main__":
    sys.exit(main())
