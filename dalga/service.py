"""
The one place that builds the parts, and starts and stops them in order.

    make_daemon     before the reactor runs: opens what is `Fixed`, reads the `Settings`
                    (for workers: makes their `Supervisor`; each has a DalgaService of its own)
    startService    as the user that the daemon becomes, in its process: builds the `Parts`
                        endpoints <- scheduler -> store <- operations <- site <- the listeners
    stopService     in the order of `DalgaService._stop`

``a -> b`` says that a is handed b, and calls it.
"""

from __future__ import annotations

import gc
import os
import platform
import secrets
import socket
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from random import SystemRandom
from typing import Any, NamedTuple, TypeVar

import twisted
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.internet.threads import deferToThreadPool

from dalga import __version__
from dalga.config.outgoing import Auth
from dalga.config.sections import Config, EndpointConfig, Format
from dalga.daemon import Daemon
from dalga.database import build_store, dialect_of, said_if_slow
from dalga.dispatch.alerts import Alerting
from dalga.dispatch.scheduler import Scheduler
from dalga.dispatch.sending import Target
from dalga.endpointstrings import OF_STRINGS, Entrance
from dalga.errors import ConfigError, StartupError
from dalga.files import room_for_clients
from dalga.health import Health
from dalga.listening import BACKLOG, Listener, listen, listen_at
from dalga.log import log_from, logger, own
from dalga.metrics import CERTIFICATES, Counts, Metrics, Numbers, Values
from dalga.model.instance import About
from dalga.operations import Operations
from dalga.outgoing.endpoint import Endpoint
from dalga.outgoing.endpoints import Endpoints
from dalga.outgoing.trust import Trust
from dalga.outgoing.webhook import Webhook
from dalga.privileges import STAYS, User, acting_as
from dalga.reloading import (
    InForce,
    Read,
    Stays,
    check_doors,
    log_refused,
    log_taken,
    reread,
)
from dalga.settings import (
    Settings,
    allowed_of,
    keeping_of,
    longest_answer,
    settings_of,
    targets_of,
    way_of,
)
from dalga.sharing import SharedNumbers
from dalga.signature import Signer
from dalga.store.clock import steady_seconds
from dalga.store.dialect import Dialect
from dalga.store.table import JobsTable
from dalga.web.auth import Tokens
from dalga.web.bodies import largest_body
from dalga.web.server import ANSWERING, ApiSite, make_numbers_site, make_site
from dalga.workers import Membership, Place, Supervisor, cores
from dalga.zonedata import ZoneData, use_newest

log = logger(__name__)
T = TypeVar("T")

#: Python's garbage collector looks at the young objects when there are this many more than at its
#: last look, instead of 700. A look frees hardly anything, as a run leaves no cycles behind.
YOUNG = 5_000

#: With as many connections and runs, a full collection takes some 3 ms.
FEW = 1_000

#: What a stop may take (seconds) beyond the grace for runs, and beyond what the database takes.
STOP_MARGIN = 2.0


@dataclass(frozen=True, slots=True)
class Fixed:
    """
    The things that a daemon keeps until its process ends. They are opened before the reactor runs:
    the process may still have privileges then, and a person is there to be told about mistakes.
    """

    #: Open.
    store: JobsTable
    #: Listening.
    listeners: Sequence[Listener]
    #: Listening, for metrics and health alone (``[metrics] listen``).
    of_metrics: Sequence[Listener]
    #: The time zone data that the process uses.
    zones: ZoneData
    #: What this instance counts.
    metrics: Metrics
    #: What all workers count; None if the daemon has no workers.
    shared: SharedNumbers | None = None

    def now(self) -> datetime:
        """The time now, by the database's clock."""
        return self.store.clock.now()

    @property
    def all_listeners(self) -> Sequence[Listener]:
        """The API's first."""
        return (*self.listeners, *self.of_metrics)

    def stays(self, takes_payloads: Callable[[int], bool]) -> Stays:
        """
        What a reload can't change.

        :param takes_payloads: see `Stays`.
        """
        encrypted = (listener for listener in self.listeners if listener.is_encrypted)
        return Stays(
            takes_payloads,
            {listener.text: listener.certificate for listener in encrypted},
            [str(listener) for listener in self.listeners if not listener.is_local],
        )

    def exchange(self, entrances: Mapping[str, Entrance]) -> None:
        """
        Show clients other certificates from now on.

        :param entrances: see `Reread.entrances`.
        """
        for listener in self.listeners:
            if listener.text in entrances:
                listener.exchange(entrances[listener.text])


class Parts(NamedTuple):
    """The parts of a running daemon."""

    endpoints: Endpoints
    scheduler: Scheduler
    operations: Operations
    health: Health
    #: The factory of the API's connections.
    site: ApiSite
    #: The factory of connections for metrics and health alone.
    numbers: ApiSite
    ports: list[IListeningPort]
    webhooks: Webhooks


class Webhooks(NamedTuple):
    """Where alerts and signs of life are POSTed to."""

    #: By the names of the targets.
    targets: Mapping[str, Webhook]
    monitor: Webhook | None

    async def close(self) -> None:
        """See `Webhook.close`."""
        monitors = [] if self.monitor is None else [self.monitor]
        for webhook in (*self.targets.values(), *monitors):
            await webhook.close()


def build(
    reactor: Any, fixed: Fixed, settings: Settings, instance: str, place: Place | None = None
) -> Parts:
    """
    Build the parts: each is handed the parts before it. When this returns, clients are answered,
    and no run is claimed yet.

    :param instance: the name of this instance.
    :param place: which worker this instance is; None if it is the only one of its daemon.
    """
    fixed.store.called(instance)
    webhooks = build_webhooks(reactor, settings, fixed.now)
    slots = settings.pace.slots

    def in_thread(work: Callable[[], T]) -> Deferred[T]:
        return deferToThreadPool(reactor, reactor.getThreadPool(), work)

    endpoints = Endpoints(build_endpoints(reactor, settings, instance, fixed.now))

    def certificates() -> Deferred[Mapping[str, datetime]]:
        ours, shared = endpoints.certificates(), fixed.shared
        if shared is None or place is None:
            return succeed(ours)
        return in_thread(lambda: earliest(ours, shared.read(place.number).values()))

    scheduler = Scheduler(
        reactor=reactor,
        store=fixed.store,
        endpoint=endpoints,
        pace=settings.pace,
        policy=settings.policy,
        random=SystemRandom(),
        instance=instance,
        about=lambda: About(version=__version__, clock_offset=fixed.store.clock.offset),
        keeping=keeping_of(settings.history, settings.audit),
        metrics=fixed.metrics,
        alerting=alerting_of(settings, webhooks),
    )
    fixed.store.tell(scheduler.count_ended)
    operations = Operations(
        store=fixed.store,
        reactor=reactor,
        written=scheduler.expect,
        running=lambda: scheduler.running,
        look=scheduler.look,
        acting=scheduler.expect_action,
        instance=instance,
        in_thread=in_thread,
        variation=variation_of(settings),
        tzdata=fixed.zones.version,
        worker=place,
        allowed=allowed_of(settings),
        certificates=certificates,
    )
    health = Health(
        store=fixed.store,
        reactor=reactor,
        metrics=fixed.metrics,
        in_thread=in_thread,
        looked=operations.count,
        shared=fixed.shared,
        place=None if place is None else place.number,
    )
    show(fixed.metrics, operations, endpoints, instance)
    site = make_site(
        operations=operations,
        health=health,
        reactor=reactor,
        idle_timeout=settings.idle_timeout,
        arrival_timeout=settings.arrival_timeout,
        max_connections=room_for_clients(slots, len(settings.endpoints)),
        tokens=Tokens(settings.tokens),
        doors=settings.doors,
    )
    numbers = make_numbers_site(operations, health, reactor)
    ports = [listener.adopt(reactor, site) for listener in fixed.listeners]
    ports += [listener.adopt(reactor, numbers) for listener in fixed.of_metrics]
    return Parts(endpoints, scheduler, operations, health, site, numbers, ports, webhooks)


def build_webhooks(reactor: Any, settings: Settings, now: Callable[[], datetime]) -> Webhooks:
    """
    Build what alerts and signs of life are POSTed with.

    :param now: the time now, by the database's clock.
    """
    alerts = settings.alerts
    trust = settings.alert_trust
    monitor = None
    if alerts.heartbeat_url:
        monitor = Webhook(reactor, alerts.heartbeat_url, alerts.heartbeat_authorization, trust)
    targets = {
        name: Webhook(reactor, each.url, each.authorization, trust, signer_of(each.secrets, now))
        for name, each in settings.targets.items()
    }
    return Webhooks(targets, monitor)


def alerting_of(settings: Settings, webhooks: Webhooks) -> Alerting:
    """Where the scheduler sends alerts."""
    targets = {
        name: Target(webhook, settings.targets[name].format is Format.SLACK)
        for name, webhook in webhooks.targets.items()
    }
    return Alerting(targets, webhooks.monitor)


def variation_of(settings: Settings) -> Callable[[], float]:
    """What draws the factor for a job's first interval."""
    random = SystemRandom()
    return lambda: settings.policy.variation(random)


def build_endpoints(
    reactor: Any,
    settings: Settings,
    instance: str,
    now: Callable[[], datetime],
    was: Settings | None = None,
    present: Endpoints | None = None,
) -> Mapping[str, Endpoint]:
    """
    Build the endpoints, by their names.

    :param instance: the name of this instance.
    :param now: the time now, by the database's clock.
    :param was: the settings of the endpoints that are there. An endpoint for which nothing has
        changed stays, with its connections.
    :param present: those endpoints.
    """
    slots = settings.pace.slots
    found = {}
    for name, config in settings.endpoints.items():
        if was is not None and present is not None and settings.same_endpoint(was, name):
            found[name] = present[name]
        else:
            trust = settings.trusts[name]
            found[name] = build_endpoint(reactor, config, trust, slots, instance, now)
    return found


def signer_of(secrets: Sequence[str], now: Callable[[], datetime]) -> Signer | None:
    """
    What signs with these secrets; None without any.

    :param now: the time now, by the database's clock.
    """
    return Signer(secrets, now) if secrets else None


def build_endpoint(
    reactor: Any,
    config: EndpointConfig,
    trust: Trust,
    slots: int,
    instance: str,
    now: Callable[[], datetime],
) -> Endpoint:
    """
    Build an endpoint of its section of the configuration.

    :param trust: the CAs of the file `config.ca`, and the certificate of `config.cert`.
    :param slots: how many POSTs are under way at once, at most.
    :param instance: the name of this instance.
    :param now: the time now, by the database's clock.
    """
    return Endpoint(
        reactor=reactor,
        baseurl=config.baseurl,
        connect_timeout=config.timeout,
        instance=instance,
        slots=slots,
        trust=trust,
        headers=config.headers,
        answers=config.answers,
        signer=signer_of(config.secrets, now),
        has_auth=config.auth is not Auth.NONE,
        way=way_of(config),
    )


def earliest(ours: Mapping[str, datetime], others: Iterable[Numbers]) -> Mapping[str, datetime]:
    """
    When the endpoints' certificates end, by the endpoints' names: of what the workers have seen,
    the earliest.

    :param ours: what this instance has seen.
    :param others: the numbers of the other workers.
    """
    found = {**ours}
    for numbers in others:
        for (name,), seconds in numbers.get(CERTIFICATES, {}).items():
            assert not isinstance(seconds, Counts)
            instant = datetime.fromtimestamp(seconds, UTC)
            found[name] = min(instant, found.get(name, instant))
    return found


def show(metrics: Metrics, operations: Operations, endpoints: Endpoints, instance: str) -> None:
    """
    Have the metrics show what is known of the jobs and the endpoints, and what runs.

    :param instance: the name of this instance.
    """
    build = __version__, platform.python_version(), twisted.__version__, instance

    def jobs() -> Values | None:
        known = operations.counted()
        return None if known is None else known[0].by_state

    def age() -> float | None:
        known = operations.counted()
        return None if known is None else known[1]

    def expiries() -> Values:
        found = endpoints.certificates()
        return {(name,): instant.timestamp() for name, instant in found.items()}

    metrics.gauge("dalga_build_info", lambda: {build: 1})
    metrics.gauge(CERTIFICATES, expiries)
    metrics.gauge("dalga_jobs", jobs)
    metrics.gauge("dalga_jobs_age_seconds", age)


def quiet_collector() -> None:
    """
    Have Python's garbage collector pass over all that is there by now: modules, classes and parts,
    which stay until the process ends. Else it goes through all of that now and then, and no POST
    leaves meanwhile (P7).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])


def instance_name() -> str:
    """
    A name for this instance: its host, its process, and a random part. The endpoint sees it.
    """
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"


class DalgaService(Daemon):
    """
    An instance: an HTTP interface and a scheduler over one store.

    :param fixed: closed by the service when it stops.
    :param force: what it goes by at first.
    :param read: reads the configuration anew, at each reload.
    :param membership: what it is as a worker; None if it is the only instance of its daemon.
    """

    _parts: Parts
    _instance: str

    def __init__(
        self,
        reactor: Any,
        fixed: Fixed,
        force: InForce,
        read: Read,
        membership: Membership | None = None,
    ) -> None:
        self._reactor = reactor
        self._fixed = fixed
        self._force = force
        self._read = read
        self._membership = membership
        self._stopping = False
        #: Whether the configuration is read again at present, and whether it is to be read once
        #: more then.
        self._is_reading = self._reads_again = False

    @property
    def _settings(self) -> Settings:
        return self._force.settings

    def startService(self) -> None:
        """Build the parts, take connections, and begin to claim."""
        super().startService()
        self._instance = instance = (
            instance_name()
        )  # of the process that twistd may have forked by now
        place = None if self._membership is None else self._membership.place
        self._parts = build(self._reactor, self._fixed, self._settings, instance, place)
        quiet_collector()
        self._parts.health.start()
        self._parts.scheduler.start()
        # By then signals are taken: a stop may follow at once on these lines.
        self._reactor.callWhenRunning(self._log_start, instance, place)

    def _log_start(self, instance: str, place: Place | None) -> None:
        if place is None:
            log_start(self._fixed, self._settings, instance, instance)
        else:
            log.info("this worker is instance {instance}", instance=instance)

    def stopService(self) -> Deferred[None]:
        """
        Stop claiming, stop listening, let running POSTs end and record them while clients get their
        answers, leave the list of instances, close the connections: one after the other. A run that
        is still under way after `Settings.grace` is left to its lease.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        self._stopping = True
        return Deferred.fromCoroutine(self._stop())

    def reload(self) -> None:
        """
        Read the configuration again, in a thread (P7), and go by it. A reload that is asked for
        during another one follows on it. During a stop there is none.
        """
        if self._stopping:
            return
        if self._is_reading:
            self._reads_again = True
        else:
            self._is_reading = True
            own(self._reload(), log)

    async def _reload(self) -> None:
        try:
            while True:
                self._reads_again = False
                await self._reload_once()
                if not self._reads_again:
                    return
        finally:
            self._is_reading = False

    async def _reload_once(self) -> None:
        was = self._force
        stays = self._fixed.stays(self._fixed.store.takes_payloads)
        reactor = self._reactor
        try:
            again = await deferToThreadPool(
                reactor,
                reactor.getThreadPool(),
                reread,
                self._read,
                was,
                stays,
            )
        except (ConfigError, StartupError) as error:
            log_refused(error)
            return
        if self._stopping:
            return
        self._take_over(again.now)
        self._fixed.exchange(again.entrances)
        if self._membership is None:  # the supervisor says it once, for all workers
            log_taken(was, again)

    def _take_over(self, now: InForce) -> None:
        """
        Hand another configuration to the parts, in one turn of the reactor. Steps that can fail
        come before the first part has it.
        """
        was, settings, parts, reactor = self._settings, now.settings, self._parts, self._reactor
        slots = settings.pace.slots
        clock = self._fixed.now
        endpoints = build_endpoints(reactor, settings, self._instance, clock, was, parts.endpoints)
        webhooks = parts.webhooks
        if not settings.same_webhooks(was):
            webhooks = build_webhooks(reactor, settings, clock)
        clients = room_for_clients(slots, len(endpoints))

        self._force = now
        for endpoint in endpoints.values():
            endpoint.resize(slots)
        parts.endpoints.exchange(endpoints)
        self._fixed.store.reconfigure(targets_of(now.config), settings.history.mode)
        self._fixed.metrics.path_labels.most = now.config.metrics.paths
        parts.operations.reconfigure(allowed_of(settings), variation_of(settings))
        parts.site.reconfigure(
            settings.idle_timeout,
            settings.arrival_timeout,
            clients,
            largest_body(settings.max_payload),
        )
        parts.site.tokens = Tokens(settings.tokens)
        parts.site.doors = settings.doors
        parts.scheduler.reconfigure(
            settings.pace,
            settings.policy,
            keeping_of(settings.history, settings.audit),
            alerting_of(settings, webhooks),
        )
        if webhooks is not parts.webhooks:
            own(parts.webhooks.close(), log)
            self._parts = parts._replace(webhooks=webhooks)
        log_from(now.config.log.level)
        # What was exchanged refers to itself, so only a collection frees it, and the collector is
        # quiet. (600 reloads without it: 120 MB instead of 77.) It takes a millisecond; with
        # thousands of connections it would take too long (P7), and is left to the collector.
        if len(parts.site.channels) + parts.scheduler.running < FEW:
            gc.collect()

    async def _stop(self) -> None:
        try:
            self._parts.health.stop()
            self._parts.scheduler.stop_claiming()
            self._parts.endpoints.stop_resolving()
            await self._stop_listening()
            await self._drain()
            self._parts.operations.stop()
            self._parts.health.close()
            await self._parts.scheduler.depart()
            await self._parts.endpoints.close()
            await self._parts.webhooks.close()
        finally:
            await self._fixed.store.close()
        log.info("stopped")

    async def _stop_listening(self) -> None:
        shuts = self._membership is None
        if self._membership is not None and self._membership.others_closed is not None:
            await self._membership.others_closed
            shuts = True
        listeners = self._fixed.all_listeners
        for port, listener in zip(self._parts.ports, listeners, strict=True):
            # The kernel resets the connections that nobody has accepted. Those that it has by now
            # are accepted, and it makes no more: the port is closed a turn of the reactor later.
            port.numberAccepts = BACKLOG  # type: ignore[attr-defined]
            port.doRead()  # type: ignore[attr-defined]
            if shuts:
                with suppress(OSError):  # of systems other than Linux
                    listener.socket.shutdown(socket.SHUT_RD)
        for port, listener in zip(self._parts.ports, listeners, strict=True):
            await _maybe(port.stopListening())
            if self._membership is None:
                listener.close()
            else:
                listener.close_copy()  # the file of a local socket is the supervisor's
        if self._membership is not None:
            self._membership.closed()

    async def _drain(self) -> None:
        """Wait for runs and for requests, both at the same time."""
        answers = Deferred.fromCoroutine(self._drain_requests())
        await self._drain_runs()
        await answers

    async def _drain_requests(self) -> None:
        """Wait for the requests that have begun, and for their answers to be taken."""
        within = min(self._settings.grace, ANSWERING)
        sites = self._parts.site, self._parts.numbers
        drains = [Deferred.fromCoroutine(site.drain(within)) for site in sites]
        cut_off = sum(await gatherResults(drains))
        if cut_off:
            log.warn("cut off after {within:g} s: {count}", within=within, count=_clients(cut_off))

    async def _drain_runs(self) -> None:
        """Wait for the runs under way, and for their records."""
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


def _clients(count: int) -> str:
    return "1 client" if count == 1 else f"{count} clients"


def log_start(fixed: Fixed, settings: Settings, who: str, instance: str | None = None) -> None:
    """
    Write the log's first lines: what this daemon is, and what it goes by.

    :param who: the name of its only instance, or how many workers it has.
    :param instance: the name of its only instance; None if it has workers.
    """
    log.info(
        "dalga {version} ({who}) listens on {urls}, "
        "keeps jobs in {where} and POSTs them to {endpoints}",
        version=__version__,
        who=who,
        urls=", ".join(map(str, fixed.listeners)),
        where=fixed.store.where(),
        endpoints=_in_words(settings.endpoints),
        instance=instance,
    )
    if fixed.of_metrics:
        urls = ", ".join(f"{listener}metrics" for listener in fixed.of_metrics)
        log.info("numbers are shown to all at {urls}", urls=urls)
    reachable = [str(listener) for listener in fixed.listeners if not listener.is_local]
    if reachable and not settings.tokens:
        log.warn(
            "others than this machine can reach {urls}, and can do anything there: there are no "
            "tokens, and the configuration says allowUnauthenticated = yes",
            urls=", ".join(reachable),
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


def _in_words(endpoints: Mapping[str, EndpointConfig]) -> str:
    """The endpoints' URLs, with the names of those that have one."""
    default, *others = endpoints
    named = ", ".join(f"{name} is {endpoints[name].baseurl}" for name in others)
    return f"{endpoints[default].baseurl}{f' ({named})' if named else ''}"


def make_daemon(
    config: Config, reactor: Any, user: User = STAYS, read: Read | None = None
) -> Daemon:
    """
    Make an instance, or a supervisor of as many as the configuration asks for. See `make_service`.
    """
    workers = config.jobs.workers or cores()
    if workers == 1:
        return make_service(config, reactor, user, read)
    return make_supervisor(config, reactor, workers, user, read)


def make_service(
    config: Config, reactor: Any, user: User = STAYS, read: Read | None = None
) -> DalgaService:
    """
    Open the `Fixed` things, and make the daemon. Blocks: to be called before the reactor runs.

    :param user: the user that the process will be. The database is opened as that user; sockets and
        certificates are opened as the present user.
    :param read: reads the configuration anew, at each reload; None if `config` does not change.
    :raises StartupError: if the database, the table or the address can't be used.
    """
    dialect = dialect_of(config.database, max_payload=config.jobs.max_payload)
    fixed, settings = _open(config, reactor, dialect, user)
    return DalgaService(reactor, fixed, InForce(config, settings), read or (lambda: config))


def make_supervisor(
    config: Config, reactor: Any, workers: int, user: User = STAYS, read: Read | None = None
) -> Supervisor:
    """
    Open the `Fixed` things, and make a daemon of several workers. See `make_service`.

    :param workers: how many.
    :raises StartupError: as `make_service`.
    """
    dialect = dialect_of(config.database, workers, config.jobs.max_payload)
    fixed, settings = _open(config, reactor, dialect, user)
    for listener in fixed.all_listeners:
        if not listener.is_plain:
            raise StartupError(
                f"{OF_STRINGS} is {listener.text!r}: this kind is for one process, give workers = 1"
            )
    # Each worker opens a store of its own. This one was to find mistakes while somebody is there.
    fixed.store.close().addErrback(partial(log.failure, "the start's own store did not close"))
    # A collection writes to each object that it looks at, so a page of memory would be shared no
    # more. In the workers, too, it passes over what is there by now.
    quiet_collector()
    shared = SharedNumbers(workers, steady_seconds)
    read_again = read or (lambda: config)
    #: The configuration of workers that are forked from now on.
    force = InForce(config, settings)

    def make_worker(reactor: Any, membership: Membership) -> DalgaService:
        reactor.seconds = steady_seconds
        metrics = Metrics(force.config.metrics.paths)
        store = _store_of(force.config, reactor, dialect, metrics)
        store.open()
        of_worker = replace(fixed, store=store, metrics=metrics, shared=shared)
        return DalgaService(reactor, of_worker, force, read_again, membership)

    def read_for_all() -> bool:
        nonlocal force
        try:
            again = reread(read_again, force, fixed.stays(dialect.takes_payloads))
        except (ConfigError, StartupError) as error:
            log_refused(error)
            return False
        was, force = force, again.now
        fixed.exchange(again.entrances)
        log_taken(was, again)
        log_from(force.config.log.level)
        return True

    def grace() -> float:
        return force.settings.grace + STOP_MARGIN + longest_answer(config.database)

    def close() -> None:
        for listener in fixed.all_listeners:
            listener.close()
        shared.close()

    return Supervisor(
        reactor=reactor,
        places=[Place(number, workers) for number in range(1, workers + 1)],
        make=make_worker,
        log_start=partial(log_start, fixed, settings, f"{workers} workers"),
        grace=grace,
        reread=read_for_all,
        close=close,
    )


def _open(config: Config, reactor: Any, dialect: Dialect, user: User) -> tuple[Fixed, Settings]:
    """
    Open the `Fixed` things, and read the `Settings`.

    :raises StartupError: see `make_service`.
    """
    # Twisted's timers go by time.time: when the machine's clock is set back by an hour, each timer
    # would be late by an hour (P8). Leases are measured with the same clock.
    reactor.seconds = steady_seconds
    zones = use_newest()
    settings = settings_of(config)
    metrics = Metrics(config.metrics.paths)
    store = _store_of(config, reactor, dialect, metrics)
    listeners: list[Listener] = []
    try:
        of_api = _listen(config, listeners)
        with acting_as(user), said_if_slow(store.where()):
            store.open()
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return Fixed(store, listeners[:of_api], listeners[of_api:], zones, metrics), settings


def _listen(config: Config, listeners: list[Listener]) -> int:
    """
    Open the listening sockets, the API's first.

    :param listeners: gets them, also those that were opened before a failure.
    :return: how many are the API's.
    :raises StartupError: if one can't be had.
    :raises ConfigError: if others than this machine could do anything there.
    """
    if config.listen.host:
        listeners += listen(config.listen.host, config.listen.port)
    for text in config.listen.endpoints:
        listeners += listen_at(text)
    of_api = len(listeners)
    check_doors(config, [str(listener) for listener in listeners if not listener.is_local])
    if config.metrics.listen is not None:
        listeners += listen(*config.metrics.listen, keys="listen in [metrics]")
    return of_api


def _store_of(config: Config, reactor: Any, dialect: Dialect, metrics: Metrics) -> JobsTable:
    """
    Build the store of an instance. It is not open yet.

    :param dialect: the `dialect_of` the configuration.
    :param metrics: counts the transactions.
    """
    return build_store(
        config.database,
        reactor,
        SystemRandom(),
        dialect,
        metrics,
        targets_of(config),
        config.history.mode,
    )


def create_table(config: Config, reactor: Any, user: User = STAYS) -> str:
    """
    Create the jobs table. Blocks.

    :param user: the user that a new file will belong to.
    :return: a sentence that says where the table is.
    :raises TableExists: if the table is there already.
    :raises StartupError: if the database refuses.
    """
    store = build_store(config.database, reactor, SystemRandom())
    with acting_as(user), said_if_slow(store.where()):
        return store.create_table()


def upgrade_table(
    config: Config, reactor: Any, dry_run: bool, user: User = STAYS
) -> Generator[str, None, None]:
    """
    Upgrade the jobs table. Gives lines to print, while it goes on. Blocks.

    :param dry_run: only say what an upgrade would do.
    :param user: the user that new files, beside SQLite's file, will belong to.
    :raises StartupError: if the table can't be upgraded.
    """
    use_newest()  # for the times of jobs that a Go release had in a place
    store = build_store(config.database, reactor, SystemRandom())
    with acting_as(user):
        yield from store.upgrade_table(dry_run)
