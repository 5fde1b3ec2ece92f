"""Slurm's configuration of the testbed: a small cluster with fake A100s, quick in everything."""

from collections.abc import Mapping
from pathlib import Path

PAIRS = {f"pair{i}": (f"s{2 * i + 1}", f"s{2 * i + 2}") for i in range(6)}
"""Nodes that may be taken away, two by two: a feature for each pair, as a `constraint`."""
GPU_NODES = ("n1", "n2", *(node for pair in PAIRS.values() for node in pair))
NODES = (*GPU_NODES, "c1")
GPUS = 4
"""Fake A100s of each GPU node."""

# Jobs in `urgent` preempt: those in `spot` are requeued, those in `scavenge` cancelled for good.
# Nodes have more CPUs and memory than the machine, so that jobs of a real cluster's size fit.
SLURM_CONF = """\
ClusterName=testbed
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmctldPidFile={home}/slurmctld.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdPidFile={home}/%n.pid
SlurmdLogFile={home}/%n.log
SlurmdSpoolDir={home}/spool.%n
StateSaveLocation={home}/state
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={home}/munge.socket,cred_expire=20
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=15
MinJobAge=3600
SlurmctldTimeout=10
SlurmdTimeout=10
ReturnToService=1
SlurmdParameters=config_overrides
GresTypes=gpu
{nodes}
PartitionName=gpu Nodes=n1,n2 Default=YES MaxTime=1-0 State=UP
PartitionName=spot Nodes={spot} PriorityTier=1 MaxTime=1-0 State=UP
PartitionName=scavenge Nodes={spot} PriorityTier=1 PreemptMode=CANCEL MaxTime=1-0 State=UP
PartitionName=urgent Nodes={spot} PriorityTier=10 PreemptMode=OFF MaxTime=1-0 State=UP
PartitionName=cpu Nodes=c1 MaxTime=1-0 State=UP
"""


def slurm_conf(home: Path, *, host: str, controller_port: int, ports: Mapping[str, int]) -> str:
    """The text of slurm.conf; `ports` are those of the nodes."""
    features = {node: f" Features={pair}" for pair, nodes in PAIRS.items() for node in nodes}
    lines = [
        f"NodeName={node}{features.get(node, '')} NodeHostname={host} NodeAddr=127.0.0.1"
        f" Port={ports[node]} CPUs=64 RealMemory=524288"
        f"{f' Gres=gpu:a100:{GPUS}' if node in GPU_NODES else ''} State=UNKNOWN"
        for node in NODES
    ]
    return SLURM_CONF.format(
        home=home,
        host=host,
        controller_port=controller_port,
        nodes="\n".join(lines),
        spot=",".join(features),
    )


def devices(home: Path) -> dict[Path, str]:
    """The device files that stand for GPUs, and the node of each."""
    return {home / f"devices/{node}.{n}": node for node in GPU_NODES for n in range(GPUS)}


def gres_conf(home: Path) -> str:
    """The text of gres.conf: a count without files leaves a node invalid."""
    lines = (f"NodeName={node} Name=gpu Type=a100 File={p}" for p, node in devices(home).items())
    return "\n".join(lines) + "\n"
