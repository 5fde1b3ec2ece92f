"""`python -m cluster.testbed up|down|status`."""

import argparse
import sys

from cluster.testbed import slurm
from reid.errors import UserError


def main() -> int:
    """Run one verb; 0, or 1 after one line that says why not."""
    parser = argparse.ArgumentParser(prog="python -m cluster.testbed", description=slurm.__doc__)
    parser.add_argument("verb", choices=("up", "down", "status"))
    verb = parser.parse_args().verb
    try:
        if verb == "up":
            slurm.up()
        elif verb == "down":
            slurm.down()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    running = slurm.is_up()
    print(f"the testbed is {'up: try sinfo' if running else 'down'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
