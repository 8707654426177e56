"""
The one place that builds the parts, and starts and stops them in order.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Generator
from random import SystemRandom
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThreadPool

from dalga import __version__
from dalga.config.sections import Config
from dalga.database import build_store
from dalga.dispatch.scheduler import Pace, Scheduler
from dalga.files import room_for_clients
from dalga.listening import listen, shown
from dalga.log import logger
from dalga.model.run import RunPolicy
from dalga.operations import Jobs
from dalga.outgoing.endpoint import Endpoint
from dalga.outgoing.trust import Trust
from dalga.privileges import STAYS, User, acting_as
from dalga.store.clock import steady_seconds
from dalga.store.table import JobsTable
from dalga.web.server import make_site
from dalga.zonedata import ZoneData, use_newest

log = logger(__name__)


def instance_name() -> str:
    """
    What this instance calls itself towards the endpoint: its host, its process, and a random part.
    """
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"


class DalgaService(Service):
    """
    The daemon: an HTTP interface and a scheduler over one store.

    :param store: already opened.
    :param listeners: already listening; become the service's own.
    :param trust: read while there may still be the privileges to read it.
    :param zones: the time zone data that the process uses.
    """

    def __init__(
        self,
        reactor: Any,
        config: Config,
        store: JobsTable,
        listeners: list[socket.socket],
        trust: Trust,
        zones: ZoneData,
    ) -> None:
        self._config = config
        self._trust = trust
        self._zones = zones
        self._reactor = reactor
        self._store = store
        self._listeners = listeners
        self._ports: list[IListeningPort] = []

    def startService(self) -> None:
        """Build the rest, listen, and begin to claim."""
        super().startService()  # type: ignore[no-untyped-call]
        config, reactor, store = self._config, self._reactor, self._store
        timeout, slots = config.endpoint.timeout, config.jobs.max_running
        random = SystemRandom()
        policy = RunPolicy(
            retry=config.jobs.retry,
            randomization_factor=config.jobs.randomization_factor,
            fixed_intervals=config.jobs.fixed_intervals,
        )
        instance = instance_name()  # of the process that twistd may have forked by now
        self._endpoint = Endpoint(
            reactor,
            config.endpoint.baseurl,
            timeout,
            instance,
            slots,
            self._trust,
            config.endpoint.headers,
        )
        self._scheduler = Scheduler(
            reactor,
            store,
            self._endpoint,
            Pace(slots=slots, timeout=timeout, scan=config.jobs.scan_frequency),
            policy,
            random,
            instance,
        )
        self._jobs = jobs = Jobs(
            store,
            reactor,
            self._scheduler.expect,
            lambda: self._scheduler.running,
            instance,
            in_thread=lambda work: deferToThreadPool(reactor, reactor.getThreadPool(), work),
            variation=lambda: policy.variation(random),
            tzdata=self._zones.version,
        )
        site = make_site(
            jobs,
            reactor,
            config.listen.idle_timeout,
            config.listen.read_timeout,
            room_for_clients(slots),
        )
        self._ports = [
            reactor.adoptStreamPort(listener.fileno(), listener.family, site)
            for listener in self._listeners
        ]
        self._scheduler.start()
        self._log_start(instance)

    def _log_start(self, instance: str) -> None:
        """What this instance is and does, in the log's first lines."""
        config = self._config
        log.info(
            "dalga {version} ({instance}) listens on {urls}, "
            "keeps jobs in {where} and POSTs them to {baseurl}",
            version=__version__,
            instance=instance,
            urls=", ".join(
                f"http://{shown(*listener.getsockname()[:2])}/" for listener in self._listeners
            ),
            where=self._store.where(),
            baseurl=config.endpoint.baseurl,
        )
        log.info("time zone data: {zones}", zones=self._zones)
        for note in config.notes:
            log.warn("{note}", note=note)
        for variable in config.links:
            log.debug(
                "{variable} is no configuration: it has the form of what Kubernetes and docker "
                "links set for a service",
                variable=variable,
            )

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, stop claiming, let running POSTs end, record them, leave the list of
        instances, close the connections: one after the other. What still runs after the configured
        time is left to its lease.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        grace = self._config.jobs.shutdown_timeout
        try:
            self._scheduler.stop_claiming()
            self._endpoint.stop_resolving()
            for port in self._ports:
                await _maybe(port.stopListening())
            for listener in self._listeners:
                listener.close()
            if self._scheduler.running:
                log.info(
                    "stopping: waiting up to {grace:g} s for {runs}",
                    grace=grace,
                    runs=_runs(self._scheduler.running),
                )
            left = await self._scheduler.drain(grace)
            if left:
                log.warn("left to their leases: {runs}", runs=_runs(left))
            self._jobs.stop()
            await self._scheduler.depart()
            await self._endpoint.close()
        finally:
            await self._store.close()
        log.info("stopped")


async def _maybe(result: Any) -> None:
    if isinstance(result, Deferred):
        await result


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def make_service(config: Config, reactor: Any, user: User = STAYS) -> DalgaService:
    """
    Build the daemon. Blocks: to be called before the reactor runs.

    :param user: who the process will be; the sockets and certificates are still its present user's.
    :raises StartupError: if the database, the table or the address can't be used.
    :raises ConfigError: if the endpoint's host can't be one.
    """
    # Twisted's timers go by time.time, so that setting the machine's clock back by an hour would
    # hold each of them for an hour (P8). Leases are measured with the same clock.
    reactor.seconds = steady_seconds
    zones = use_newest()
    trust = Trust(config.endpoint.ca)
    # For what it refuses: the service builds its own once there is nobody to be told any more.
    Endpoint(reactor, config.endpoint.baseurl, config.endpoint.timeout, "", 1, trust)
    store = build_store(config.database, reactor, SystemRandom())
    listeners = listen(config.listen.host, config.listen.port)
    try:
        with acting_as(user):
            store.open()
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return DalgaService(reactor, config, store, listeners, trust, zones)


def create_table(config: Config, reactor: Any, user: User = STAYS) -> str:
    """
    Create the jobs table, and say where. Blocks.

    :param user: whose a file is to be.
    :raises TableExists: if it is there already.
    :raises StartupError: if the database refuses.
    """
    store = build_store(config.database, reactor, SystemRandom())
    with acting_as(user):
        return store.create_table()


def upgrade_table(
    config: Config, reactor: Any, dry_run: bool, user: User = STAYS
) -> Generator[str, None, None]:
    """
    Upgrade the jobs table, or say what that would do; gives what to print, line by line. Blocks.

    :param user: whose the files beside a file are to be.
    :raises StartupError: if it can't be done.
    """
    use_newest()  # for the times of jobs that a Go release had in a place
    store = build_store(config.database, reactor, SystemRandom())
    with acting_as(user):
        yield from store.upgrade_table(dry_run)
