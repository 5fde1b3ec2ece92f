"""What the profile asks, held against what the cluster says. Pure functions: nothing is run."""

import difflib
from collections import Counter
from collections.abc import Callable, Iterator

from cluster.doctor.facts import Cluster, Node, Partition
from cluster.doctor.finding import Finding, ok, problem, warn
from cluster.requests import Profile, Request

REMEMBERED_SECONDS = 120
"""For so long squeue must know a finished job, so that no poll misses its end."""
SAVING_SECONDS = 30
"""In so long a trainer saves with room to spare."""

Check = Callable[[Cluster, Profile], Iterator[Finding]]


def every(cluster: Cluster, profile: Profile) -> Iterator[Finding]:
    """All checks, in order."""
    for check in (status, requeue, kill_wait, partitions, preemption, nodes):
        yield from check(cluster, profile)


def status(cluster: Cluster, profile: Profile) -> Iterator[Finding]:
    """Whether the executor learns how its jobs end."""
    asks = profile.settings.get("slurm-status-command", "sacct")
    place = f"slurm-status-command in {profile.file}"
    remembered = cluster.seconds("MinJobAge")
    accounting = "works" if cluster.accounting else "does not answer"
    if asks == "sacct":
        if cluster.accounting:
            yield ok("accounting", "sacct works, and the profile asks it")
        else:
            yield problem(
                "accounting",
                "the profile asks sacct, which does not answer: no job would ever be seen to end",
                f"set {place} to squeue",
            )
    elif remembered >= REMEMBERED_SECONDS:
        yield ok("accounting", f"sacct {accounting}; squeue is asked, MinJobAge {remembered} s")
    elif cluster.accounting:
        yield warn(
            "accounting",
            f"squeue forgets a finished job after {remembered} s (MinJobAge)",
            f"set {place} to sacct, which works here",
        )
    else:
        yield problem(
            "accounting",
            f"squeue forgets a finished job after {remembered} s (MinJobAge) and sacct does not "
            "answer: ends of jobs would be missed",
            f"ask the administrators for MinJobAge={REMEMBERED_SECONDS} or for accounting",
        )


def requeue(cluster: Cluster, profile: Profile) -> Iterator[Finding]:
    """Whether what Slurm takes away comes back."""
    if profile.settings.get("slurm-requeue"):
        yield ok("requeue", "the profile asks for it with every job")
    elif cluster.config["JobRequeue"] == "1":
        yield ok("requeue", "the cluster's default (JobRequeue=1)")
    else:
        yield warn(
            "requeue",
            "off (JobRequeue=0): a job that is preempted or loses its node counts as failed",
            f"set slurm-requeue: true in {profile.file}",
        )


def kill_wait(cluster: Cluster, _: Profile) -> Iterator[Finding]:
    """How long a trainer has to save when its job is taken away."""
    seconds = cluster.seconds("KillWait")
    if seconds >= SAVING_SECONDS:
        yield ok("KillWait", f"{seconds} s to save in after SIGTERM")
    else:
        yield warn(
            "KillWait",
            f"only {seconds} s between SIGTERM and SIGKILL: what is not saved by then since the "
            "last checkpoint is computed again",
            "nothing is lost at a time limit, where SIGTERM comes early. Against preemption, lower "
            "runtime.checkpoint_minutes in your configuration, or ask the administrators for a "
            f"KillWait of {SAVING_SECONDS} s",
        )


def partitions(cluster: Cluster, profile: Profile) -> Iterator[Finding]:
    """Whether the partitions are there, open, and long enough."""
    longest: dict[str, Request] = {}
    for request in profile.requests.values():
        wrong = list(_partition(cluster, profile, request))
        yield from wrong
        found = chosen(cluster, request)
        if found is not None and not wrong:
            other = longest.setdefault(found.name, request)
            if (request.minutes or 0) > (other.minutes or 0):
                longest[found.name] = request
    for name, request in longest.items():
        what = f"{request.rule}, asks for {request.minutes} minutes"
        yield ok(f"partition {name}", f"up; its longest job, {what}")


def _partition(cluster: Cluster, profile: Profile, request: Request) -> Iterator[Finding]:
    subject = f"partition of {request.rule}"
    place = f"slurm_partition in {profile.file}"
    names = [each.name for each in cluster.partitions]
    if "," in (request.partition or ""):
        return  # any of several will do: Slurm's own test judges that
    found = chosen(cluster, request)
    if found is None and request.partition is None:
        yield problem(
            subject,
            "none is asked for and the cluster has no default",
            f"name one of {', '.join(names)}: {place}",
        )
    elif found is None:
        near = difflib.get_close_matches(str(request.partition), names, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        yield problem(
            subject,
            f"{request.partition} does not exist{hint}",
            f"name one of {', '.join(names)}: {place}",
        )
    else:
        yield from _limits(found, profile, request, subject)


def _limits(
    found: Partition, profile: Profile, request: Request, subject: str
) -> Iterator[Finding]:
    if not found.up:
        yield problem(subject, f"{found.name} is not up", "wait, or name another one")
    if found.max_minutes is not None and (request.minutes or 0) > found.max_minutes:
        yield problem(
            subject,
            f"{request.minutes} minutes are asked for, {found.name} allows {found.max_minutes}",
            f"set runtime of {request.rule} in {profile.file} to at most {found.max_minutes}: "
            "a training goes on in the next job; raise retries if it needs many",
        )
    if found.max_nodes is not None and request.nodes > found.max_nodes:
        yield problem(
            subject,
            f"{request.nodes} nodes are asked for, {found.name} allows {found.max_nodes}",
            f"lower nodes of {request.rule} in {profile.file}",
        )
    if found.accounts is not None and request.account not in found.accounts:
        yield problem(
            subject,
            f"{found.name} is for the accounts {', '.join(found.accounts)} only; asked for: "
            f"{request.account or 'the default one'}",
            f"set slurm_account in {profile.file} and slurm-no-account to false, or name another "
            "partition",
        )
    if found.qos is not None and request.qos not in found.qos:
        yield problem(
            subject,
            f"{found.name} is for the QOS {', '.join(found.qos)} only; asked for: "
            f"{request.qos or 'the default one'}",
            f"set qos in {profile.file}",
        )


def preemption(cluster: Cluster, profile: Profile) -> Iterator[Finding]:
    """What happens to a job when a more important one wants its place."""
    if cluster.config["PreemptType"] in ("preempt/none", "(null)"):
        yield ok("preemption", "never")
        return
    asked = {_name(cluster, request) for request in profile.requests.values()}
    for found in (each for each in cluster.partitions if each.name in asked):
        mode = found.preempt_mode.split(",")[-1]
        subject = f"preemption in {found.name}"
        if mode in ("REQUEUE", "OFF"):
            yield ok(subject, "never" if mode == "OFF" else "the job goes back into the queue")
        elif mode == "CANCEL":
            yield warn(
                subject,
                "the job is cancelled and not put back (PreemptMode=CANCEL)",
                "Snakemake submits it again while retries are left, and it resumes: raise retries "
                f"in {profile.file}, or name a partition that requeues",
            )
        else:
            yield warn(
                subject,
                f"the job is stopped in place (PreemptMode={found.preempt_mode})",
                "a stopped trainer gives no sign of life and keeps its time limit running: name a "
                "partition that requeues, if there is one",
            )


def nodes(cluster: Cluster, profile: Profile) -> Iterator[Finding]:
    """Whether there are nodes for what is asked for."""
    good: dict[str, list[str]] = {}
    for request in profile.requests.values():
        found = chosen(cluster, request)
        if found is None:
            continue  # said already, or one of several
        there = [node for node in cluster.nodes if found.name in node.partitions]
        able = [node for node in there if not _lacks(node, request)]
        if not able:
            yield _no_node(there, found, profile, request)
        elif not any(node.usable for node in able):
            yield warn(
                f"nodes for {request.rule}",
                f"all {len(able)} of {found.name} that could run it are down or drained now",
                "jobs will wait until they are back: `sinfo -R` says why",
            )
        else:
            good.setdefault(f"{len(able)} of {found.name}", []).append(request.rule)
    for where, rules in good.items():
        yield ok("nodes", f"{where} can run {', '.join(rules)}")


def _lacks(node: Node, request: Request) -> list[str]:
    """What a node lacks for its share of a request, as the names of resources."""
    model, count = gpus_per_node(request)
    offered = sum(node.gpus.values()) if model is None else node.gpus.get(model, 0)
    lacking = {
        "gpu_model" if sum(node.gpus.values()) >= count else "gpu": offered < count,
        "cpus_per_task": node.cpus < request.cpus,
        "mem_mb": node.mem_mb < (request.mem_mb or 0),
        "constraint": _unmatched(request.constraint, node),
    }
    return [name for name, lacks in lacking.items() if lacks]


def _unmatched(constraint: str | None, node: Node) -> bool:
    """Only a plain feature is looked up; Slurm's own test judges expressions."""
    plain = constraint is not None and constraint.replace("_", "").replace("-", "").isalnum()
    return plain and constraint not in node.features


def _no_node(there: list[Node], found: Partition, profile: Profile, request: Request) -> Finding:
    lacking = Counter(name for node in there for name in _lacks(node, request))
    model, count = gpus_per_node(request)
    offered = sorted({f"gpu:{m or 'any'}:{n}" for node in there for m, n in node.gpus.items()})
    asked = {
        "gpu": f"{count} GPU(s) per node",
        "gpu_model": f"{count} GPU(s) called {model}",
        "cpus_per_task": f"{request.cpus} CPUs (at most {max((n.cpus for n in there), default=0)})",
        "mem_mb": f"{request.mem_mb} MB (at most {max((n.mem_mb for n in there), default=0)})",
        "constraint": f"the feature {request.constraint}",
    }
    wants = "; ".join(asked[name] for name, _ in lacking.most_common())
    return problem(
        f"nodes for {request.rule}",
        f"none of the {len(there)} nodes of {found.name} has {wants or 'a place'}. "
        f"GPUs offered: {', '.join(offered) or 'none'}",
        f"set {', '.join(lacking) or 'slurm_partition'} of {request.rule} in {profile.file} to "
        "what is offered, or name another partition",
    )


def gpus_per_node(request: Request) -> tuple[str | None, int]:
    """The GPU model, if one is asked for, and how many of it on each node."""
    count = -(-request.gpu_count // request.nodes)
    if request.gres is not None and not request.gpus:
        parts = request.gres.split(":")
        return (parts[1] if len(parts) == 3 else None), count
    return request.gpu_model, count


def chosen(cluster: Cluster, request: Request) -> Partition | None:
    """The partition that a request goes to, if it exists."""
    for each in cluster.partitions:
        if each.name == request.partition or (request.partition is None and each.default):
            return each
    return None


def _name(cluster: Cluster, request: Request) -> str | None:
    found = chosen(cluster, request)
    return None if found is None else found.name
