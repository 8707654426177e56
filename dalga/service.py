"""
The one place that builds the parts, and starts and stops them in order.

    make_service    before the reactor runs: opens what is `Fixed`, reads the `Settings`
    startService    as the user that the daemon becomes, in its process: builds the `Parts`
                        endpoint <- scheduler -> store <- jobs <- site <- the listeners
    stopService     in the order of `DalgaService._stop`

``a -> b`` says that a is handed b, and calls it.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Generator
from dataclasses import dataclass
from random import SystemRandom
from typing import Any, NamedTuple

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThreadPool

from dalga import __version__
from dalga.config.sections import Config, EndpointConfig
from dalga.database import build_store, said_if_slow
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


@dataclass(frozen=True, slots=True)
class Fixed:
    """
    What a daemon keeps until its process ends. It is opened before the reactor runs, while there
    may still be the privileges for it, and somebody to be told what is in the way.
    """

    #: Opened.
    store: JobsTable
    #: They listen already.
    listeners: list[socket.socket]
    #: The time zone data that the process uses.
    zones: ZoneData


@dataclass(frozen=True, slots=True)
class Settings:
    """
    What the parts take from the configuration beside what is `Fixed`. All of it could be exchanged
    while the daemon runs: a reload would make another `Settings`, and hand it to the parts.
    """

    policy: RunPolicy
    pace: Pace
    endpoint: EndpointConfig
    #: The endpoint's CAs, as they were when their file was read.
    trust: Trust
    #: How long a client that sends nothing keeps its connection, in seconds.
    idle_timeout: float
    #: How long a request may take to arrive, in seconds.
    arrival_timeout: float
    #: How long a stop waits for runs under way, in seconds.
    grace: float
    #: Sentences for the log, on what was given and changes nothing.
    notes: tuple[str, ...] = ()
    #: The variables that look like ours and are not.
    links: tuple[str, ...] = ()


def settings_of(config: Config) -> Settings:
    """
    The settings of a configuration. Reads the endpoint's CAs.

    :raises StartupError: if the file with the CAs can't be used.
    """
    jobs, endpoint = config.jobs, config.endpoint
    return Settings(
        policy=RunPolicy(
            retry=jobs.retry,
            randomization_factor=jobs.randomization_factor,
            fixed_intervals=jobs.fixed_intervals,
        ),
        pace=Pace(slots=jobs.max_running, timeout=endpoint.timeout, scan=jobs.scan_frequency),
        endpoint=endpoint,
        trust=Trust(endpoint.ca),
        idle_timeout=config.listen.idle_timeout,
        arrival_timeout=config.listen.read_timeout,
        grace=jobs.shutdown_timeout,
        notes=config.notes,
        links=config.links,
    )


class Parts(NamedTuple):
    """The parts of a daemon that runs."""

    endpoint: Endpoint
    scheduler: Scheduler
    jobs: Jobs
    ports: list[IListeningPort]


def build(reactor: Any, fixed: Fixed, settings: Settings, instance: str) -> Parts:
    """
    Build the parts, of which each is handed those above it. From then on clients are answered, and
    nothing is claimed yet.
    """
    random = SystemRandom()
    slots = settings.pace.slots
    endpoint = build_endpoint(reactor, settings.endpoint, settings.trust, slots, instance)
    scheduler = Scheduler(
        reactor=reactor,
        store=fixed.store,
        endpoint=endpoint,
        pace=settings.pace,
        policy=settings.policy,
        random=random,
        instance=instance,
    )
    jobs = Jobs(
        store=fixed.store,
        reactor=reactor,
        written=scheduler.expect,
        running=lambda: scheduler.running,
        instance=instance,
        in_thread=lambda work: deferToThreadPool(reactor, reactor.getThreadPool(), work),
        variation=lambda: settings.policy.variation(random),
        tzdata=fixed.zones.version,
    )
    site = make_site(
        jobs=jobs,
        reactor=reactor,
        idle_timeout=settings.idle_timeout,
        arrival_timeout=settings.arrival_timeout,
        max_connections=room_for_clients(slots),
    )
    ports = [
        reactor.adoptStreamPort(listener.fileno(), listener.family, site)
        for listener in fixed.listeners
    ]
    return Parts(endpoint, scheduler, jobs, ports)


def build_endpoint(
    reactor: Any, config: EndpointConfig, trust: Trust, slots: int, instance: str
) -> Endpoint:
    """
    The endpoint of one section of the configuration.

    :param slots: POSTs at once.
    """
    return Endpoint(
        reactor=reactor,
        baseurl=config.baseurl,
        timeout=config.timeout,
        instance=instance,
        slots=slots,
        trust=trust,
        headers=config.headers,
    )


def instance_name() -> str:
    """
    What this instance calls itself towards the endpoint: its host, its process, and a random part.
    """
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"


class DalgaService(Service):
    """
    The daemon: an HTTP interface and a scheduler over one store.

    :param fixed: becomes the service's own, which closes it.
    """

    _parts: Parts

    def __init__(self, reactor: Any, fixed: Fixed, settings: Settings) -> None:
        self._reactor = reactor
        self._fixed = fixed
        self._settings = settings

    def startService(self) -> None:
        """Build the parts, listen, and begin to claim."""
        super().startService()  # type: ignore[no-untyped-call]
        instance = instance_name()  # of the process that twistd may have forked by now
        self._parts = build(self._reactor, self._fixed, self._settings, instance)
        self._parts.scheduler.start()
        log_start(self._fixed, self._settings, instance)

    def hang_up(self, stop: Callable[[], None]) -> None:
        """
        A hang-up (SIGHUP) has come, as when a terminal is closed. It stops the daemon.

        Here alone it is decided what a hang-up means; a reload would begin here. Called by the
        signal's handler, whatever the reactor is doing.

        :param stop: does what SIGTERM does.
        """
        stop()

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, stop claiming, let running POSTs end, record them, leave the list of
        instances, close the connections: one after the other. What still runs after the configured
        time is left to its lease.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        try:
            self._parts.scheduler.stop_claiming()
            self._parts.endpoint.stop_resolving()
            await self._stop_listening()
            await self._drain()
            self._parts.jobs.stop()
            await self._parts.scheduler.depart()
            await self._parts.endpoint.close()
        finally:
            await self._fixed.store.close()
        log.info("stopped")

    async def _stop_listening(self) -> None:
        for port in self._parts.ports:
            await _maybe(port.stopListening())
        for listener in self._fixed.listeners:
            listener.close()

    async def _drain(self) -> None:
        """Wait for the runs under way, and for what came of them to be recorded."""
        scheduler, grace = self._parts.scheduler, self._settings.grace
        if scheduler.running:
            log.info(
                "stopping: waiting up to {grace:g} s for {runs}",
                grace=grace,
                runs=_runs(scheduler.running),
            )
        left = await scheduler.drain(grace)
        if left:
            log.warn("left to their leases: {runs}", runs=_runs(left))


async def _maybe(result: Any) -> None:
    if isinstance(result, Deferred):
        await result


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def log_start(fixed: Fixed, settings: Settings, instance: str) -> None:
    """What this instance is and does, in the log's first lines."""
    log.info(
        "dalga {version} ({instance}) listens on {urls}, "
        "keeps jobs in {where} and POSTs them to {baseurl}",
        version=__version__,
        instance=instance,
        urls=", ".join(
            f"http://{shown(*listener.getsockname()[:2])}/" for listener in fixed.listeners
        ),
        where=fixed.store.where(),
        baseurl=settings.endpoint.baseurl,
    )
    log.info("time zone data: {zones}", zones=fixed.zones)
    for note in settings.notes:
        log.warn("{note}", note=note)
    for variable in settings.links:
        log.debug(
            "{variable} is no configuration: it has the form of what Kubernetes and docker "
            "links set for a service",
            variable=variable,
        )


def make_service(config: Config, reactor: Any, user: User = STAYS) -> DalgaService:
    """
    Open what a daemon needs, and make the daemon. Blocks: to be called before the reactor runs.

    :param user: who the process will be; the sockets and certificates are still its present user's.
    :raises StartupError: if the database, the table or the address can't be used.
    """
    # Twisted's timers go by time.time, so that setting the machine's clock back by an hour would
    # hold each of them for an hour (P8). Leases are measured with the same clock.
    reactor.seconds = steady_seconds
    zones = use_newest()
    settings = settings_of(config)
    store = build_store(config.database, reactor, SystemRandom())
    listeners = listen(config.listen.host, config.listen.port)
    try:
        with acting_as(user), said_if_slow(store.where()):
            store.open()
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return DalgaService(reactor, Fixed(store, listeners, zones), settings)


def create_table(config: Config, reactor: Any, user: User = STAYS) -> str:
    """
    Create the jobs table, and say where. Blocks.

    :param user: whose a file is to be.
    :raises TableExists: if it is there already.
    :raises StartupError: if the database refuses.
    """
    store = build_store(config.database, reactor, SystemRandom())
    with acting_as(user), said_if_slow(store.where()):
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
