"""Dalga beside another scheduler, in one run."""

from __future__ import annotations

from typing import NamedTuple

from bench.cases.drains import BACKLOG, drained
from bench.daemon import Bench, Figures
from bench.machine import wait_until
from bench.peer import Peer, running_peer
from bench.references import bare, lean
from bench.sink import check, rate

#: Jobs of db-scheduler's first drain, whatever the length. The JVM loads its classes and compiles
#: them meanwhile; a third and a fourth drain were no faster than the second.
WARM_UP = 10_000


def field(bench: Bench) -> Figures:
    """
    One-off jobs that are all due: by db-scheduler, by a daemon, by a daemon of two processes, and
    as many POSTs by the references.
    """
    count = bench.jobs(BACKLOG)
    with running_peer(bench) as peer:
        cold = _drained_by(peer, bench, WARM_UP).per_second
        theirs = _drained_by(peer, bench, count)
        their_memory = peer.peak_memory()
    ours = drained(bench, count)
    found = ours["jobs_per_second"]
    figures = {
        "db_scheduler_first_drain_per_second": cold,
        "db_scheduler_per_second": theirs.per_second,
        "db_scheduler_cpu_ms_per_job": theirs.cpu_per_job,
        "db_scheduler_database_cpu_ms_per_job": theirs.database_cpu_per_job,
        "db_scheduler_peak_memory_mb": their_memory,
        "jobs_per_second": found,
        "daemon_cpu_ms_per_job": ours["daemon_cpu_ms_per_job"],
        "database_cpu_ms_per_job": ours["database_cpu_ms_per_job"],
        "peak_memory_mb": ours["peak_memory_mb"],
    }
    if bench.program.takes("--workers"):
        both = drained(bench, count, options=("--workers", "2"))
        figures |= {
            "two_workers_per_second": both["jobs_per_second"],
            "two_workers_cpu_ms_per_job": both["daemon_cpu_ms_per_job"],
            "two_workers_of_db_scheduler": both["jobs_per_second"] / theirs.per_second,
            "two_workers_of_one": both["jobs_per_second"] / found,
        }
    treq, least = bare(bench), lean(bench)
    return {
        **figures,
        "bare_treq_per_second": treq,
        "lean_per_second": least,
        "of_db_scheduler": found / theirs.per_second,
        "of_db_scheduler_first_drain": found / cold,
        "cpu_of_db_scheduler": ours["daemon_cpu_ms_per_job"] / theirs.cpu_per_job,
        "ratio": found / treq,
        "of_lean": found / least,
    }


class Drained(NamedTuple):
    """A drain by the peer."""

    per_second: float
    #: Milliseconds of CPU: the peer's, and the database's.
    cpu_per_job: float
    database_cpu_per_job: float


def _drained_by(peer: Peer, bench: Bench, count: int) -> Drained:
    peer.order(f"schedule job {count}")
    bench.sink.forget()
    cpu, database_cpu = peer.cpu(), bench.database.cpu()
    peer.order("start")
    wait_until(lambda: bench.sink.count() >= count, "all jobs to arrive")
    wait_until(lambda: bench.database.count(table="scheduled_tasks") == 0, "all to be recorded")
    cpu, database_cpu = peer.cpu() - cpu, bench.database.cpu() - database_cpu
    peer.order("stop")
    arrivals = bench.sink.arrivals()
    check(arrivals, count)
    return Drained(rate(arrivals), cpu / count * 1000, database_cpu / count * 1000)
