"""A SLURM of this machine for tests: munged, slurmctld and slurmd on loopback, stopped and removed at the end.

    python tests/slurm_cluster.py            # start one and stay, to try things by hand; prints what to export

Two partitions over one node of four CPUs (oversubscribed: most machines that test have two): ``low`` is pre-empted by
``high``. No accounting: what a cell's state is, its own files say.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
CPUS = 4
_SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin"

_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket={base}/munge.socket,cred_expire=6
SlurmUser=root
SlurmdUser=root
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd.pid
SlurmctldLogFile={base}/slurmctld.log
SlurmdLogFile={base}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1
MpiDefault=none
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
KillWait=20
OverTimeLimit=0
MinJobAge=600
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=low Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
PartitionName=high Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str | None:
    """Why no SLURM can be started here; None if one can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_SEARCHED) is None]
    if absent:
        return f"no SLURM here ({', '.join(absent)} not found): apt-get install slurm-wlm munge"
    return None if os.getuid() == 0 else "slurmd runs jobs as root only"


@contextlib.contextmanager
def slurm_cluster() -> Iterator[dict[str, str]]:
    """Within, the cluster runs.

    Returns:
        Environment of a client: SLURM_CONF.
    """
    base = Path(tempfile.mkdtemp(prefix="slurm-"))
    daemons: list[subprocess.Popen[bytes]] = []
    environment = {**os.environ, "PATH": _SEARCHED, "SLURM_CONF": str(base / "slurm.conf")}
    try:
        for command in _commands(base):
            with (base / f"{Path(command[0]).name}.out").open("wb") as log:
                daemons.append(
                    subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
                )
            if command[0] == "munged":
                _wait(lambda: (base / "munge.socket").exists(), "munged", base)
        _wait(lambda: _is_idle(environment), "an idle node", base)
        yield {"SLURM_CONF": environment["SLURM_CONF"], "PATH": _SEARCHED}
    finally:
        subprocess.run(["scancel", "--user", "root"], env=environment, check=False, capture_output=True, timeout=30)
        _stop(daemons, environment)
        shutil.rmtree(base, ignore_errors=True)


def _commands(base: Path) -> list[list[str]]:
    for name in ("state", "spool"):
        (base / name).mkdir()
    (base / "munge.key").write_bytes(os.urandom(128))
    (base / "munge.key").chmod(0o400)
    host = socket.gethostname().split(".")[0]
    ports = {"controller_port": _free_port(), "node_port": _free_port()}
    (base / "slurm.conf").write_text(_CONF.format(base=base, host=host, cpus=CPUS, **ports))
    return [
        ["munged", "--foreground", "--force", f"--socket={base}/munge.socket", f"--key-file={base}/munge.key",
         f"--log-file={base}/munged.log", f"--pid-file={base}/munged.pid", f"--seed-file={base}/munged.seed"],
        ["slurmctld", "-D"],
        ["slurmd", "-D", "-N", host],
    ]  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_idle(environment: dict[str, str]) -> bool:
    command = ["sinfo", "--noheader", "--format=%T", "--partition=low"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
    return told.stdout.strip() == "idle"


def _wait(is_there, what: str, base: Path) -> None:
    deadline = time.monotonic() + 60
    while not is_there():
        if time.monotonic() > deadline:
            logs = "\n".join(f"--- {path.name}\n{path.read_text()[-2000:]}" for path in base.glob("*.[lo]*"))
            raise AssertionError(f"no {what} within a minute\n{logs}")
        time.sleep(0.1)


def _stop(daemons: list[subprocess.Popen[bytes]], environment: dict[str, str]) -> None:
    """Jobs first, which slurmd ends; then the daemons, the last started first."""
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        told = subprocess.run(["squeue", "--noheader"], env=environment, capture_output=True, text=True, check=False)
        if not told.stdout.strip():
            break
        time.sleep(0.2)
    for daemon in reversed(daemons):
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(timeout=10)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


if __name__ == "__main__":
    if why := missing():
        sys.exit(why)
    with slurm_cluster() as client, contextlib.suppress(KeyboardInterrupt):
        print(f"export SLURM_CONF={client['SLURM_CONF']}", flush=True)
        signal.pause()
