"""`python -m tests.slurm.testbed up|down`, or `run COMMAND...`: up, the command, down."""

import argparse
import subprocess
import sys

from reid.errors import UserError
from tests.slurm.testbed import slurm


def main() -> int:
    """Run one verb; 0, the code of the command, or 1 after one line that says why not.

    `run` leaves the testbed as it was. Where none can be, the command knows what to skip.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.slurm.testbed", description=__doc__)
    parser.add_argument("verb", choices=("up", "down", "run"))
    parser.add_argument("command", nargs=argparse.REMAINDER, help="of `run`")
    arguments = parser.parse_args()
    was_up, code = slurm.is_up(), 0
    try:
        if arguments.verb == "run" and (problem := slurm.impossible()):
            print(f"no testbed: {problem}", file=sys.stderr)
            return subprocess.run(arguments.command).returncode
        if arguments.verb != "down":
            slurm.up()
        if arguments.verb == "run":
            code = subprocess.run(arguments.command).returncode
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    finally:
        if arguments.verb == "down" or (arguments.verb == "run" and not was_up):
            slurm.down()
    print(f"the testbed is {'up: try sinfo' if slurm.is_up() else 'down'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
