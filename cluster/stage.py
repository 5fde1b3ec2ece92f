"""One stage of one training as a job, without Snakemake."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from submitit import JobEnvironment
from submitit.helpers import DelayedSubmission

from cluster.child import Child
from reid.errors import Stopped, UserError


class Stage:
    """Runs `reid VERB ...` in `root`: what submitit pickles, calls, and asks for a checkpoint.

    Everything that makes it resume lies in the trainer: a second start is the same command.
    """

    def __init__(self, root: Path, verb: Sequence[str], *, grace: float) -> None:
        """`verb`: with its arguments. `grace`: seconds to save in when time is up."""
        self.root, self.verb, self.grace = root, list(verb), grace
        self._process: Child | None = None

    def __call__(self) -> None:
        """One start. Raises UserError when the verb fails, Stopped when it was asked to stop."""
        os.chdir(self.root)
        command = [sys.executable, "-m", "reid", *self.verb]
        self._process = Child(command, os.environ)
        code = self._process.wait()
        if code == Stopped.exit_code:
            if JobEnvironment().global_rank:
                return  # the first process speaks for all, and puts the job back into the queue
            raise Stopped("stopped in time, progress is saved: launch it again to go on")
        if code:
            raise UserError(f"`reid {' '.join(self.verb)}` ended with code {code}, see above")

    def checkpoint(self) -> DelayedSubmission:
        """Let the trainer save and end; what to go on with.

        submitit calls it as the time runs out, and then puts this job back into the queue.
        """
        if self._process is not None:
            self._process.stop(grace=self.grace)
        return DelayedSubmission(Stage(self.root, self.verb, grace=self.grace))
