"""`python -m tests.slurm.testbed up|down`, or `run COMMAND...`: up, the command, down."""

import argparse
import subprocess
import sys

from reid.errors import UserError
from tests.slurm.testbed import slurm


def main() -> int:
    """Run one verb; 0, the code of the command, or 1 after one line that says why not."""
    parser = argparse.ArgumentParser(prog="python -m tests.slurm.testbed", description=__doc__)
    parser.add_argument("verb", choices=("up", "down", "run"))
    parser.add_argument("command", nargs=argparse.REMAINDER, help="of `run`")
    arguments = parser.parse_args()
    try:
        if arguments.verb == "run":
            return _run(arguments.command)
        if arguments.verb == "up":
            slurm.up()
        else:
            slurm.down()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"the testbed is {'up: try sinfo' if slurm.is_up() else 'down'}")
    return 0


def _run(command: list[str]) -> int:
    """Run a command beside the testbed, which is left as it was found.

    Where no testbed can be, the command runs without: it knows what to skip.
    """
    if problem := slurm.impossible():
        print(f"no testbed: {problem}", file=sys.stderr)
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
