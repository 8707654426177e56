"""
POST a job with treq, and say what came of it. Some jobs' requests have another method than POST;
what is said of POSTs here is true of all of them.

One attempt of a run goes in and one `Outcome` comes out, whatever the server at ``baseurl`` does:
it may refuse, keep silent, answer for ever, or answer something that is not HTTP. Nothing that it
sends makes Dalga call another scheme, host or port than ``baseurl``'s (P11), fill its memory (P10),
or wait longer than the time-out (P3). docs/promises.md lists the promises P1 to P11.

A POST is made in these steps, all in the reactor's thread::

    Endpoint.post       writes the request as bytes, and makes an `Exchange` of it
    Client.request      is treq's client: hands the `Exchange` to treq's agent
    Pool.request        is treq's agent: starts the deadline, and finds or makes a connection
    Connection.carry    sends the request (under TLS, once the handshake is over)
    Reader.feed         reads the answer to its end or to `MAX_BODY`
    Endpoint._answered  makes an `Outcome` of the answer, with what `keeping.py` keeps of answers
                        by which a run fails; or `_failed`, of a failure

treq is one of the libraries that Dalga is built on. `client.py` says which part of it a POST uses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from dalga import __version__
from dalga.log import logger
from dalga.model.answers import FAILURES, Answers
from dalga.model.delivery import PLAIN, Delivery, Method, PayloadKind, has_content
from dalga.model.headers import is_name, is_of_dalga, is_of_signature, is_value
from dalga.model.key import target_path
from dalga.model.run import Outcome, Run
from dalga.model.schedule import timestamp
from dalga.model.trace import traceparent
from dalga.outgoing.answer import Answer
from dalga.outgoing.client import Client
from dalga.outgoing.failures import MISTAKE, PostFailed, unsendable
from dalga.outgoing.keeping import kept_of, secrets_of, words_without
from dalga.outgoing.pool import STRAIGHT, Pool, Route, Way
from dalga.outgoing.steering import NOTHING, PREFIX, Steers
from dalga.outgoing.trust import Trust
from dalga.outgoing.wire import Exchange
from dalga.signature import Signer

log = logger(__name__)

#: A longer Retry-After is clamped to this: nine digits of seconds, 31 years. A number of any length
#: is then compared by its digits, and no date goes past the year 9999.
MAX_RETRY_AFTER = timedelta(seconds=999_999_999)

#: The Content-Type of a payload by its kind, in the place of the endpoint's.
_TYPES = {
    PayloadKind.JSON: "application/json",
    PayloadKind.BASE64: "application/octet-stream",
}

#: The header of a request's trace, as the W3C's Trace Context spells it.
_TRACE = "traceparent"

#: The header that no job may replace where its endpoint has ``auth``, in lower case.
_AUTHORIZATION = "authorization"

#: What answers mean where the configuration says nothing.
_ANSWERS = Answers()


class Endpoint:
    """
    The application's endpoint, to which jobs are POSTed.

    :param reactor: a POST's deadline is counted by its clock, ``reactor.seconds()``.
    :param baseurl: an http or https URL that `dalga.config.load` lets pass: ASCII, and without
        user, query and fragment.
    :param connect_timeout: how long each address may take to accept a connection, in seconds. The
        deadline of a whole POST comes from its run: ``run.timeout``.
    :param instance: what this instance calls itself, for the ``dalga-instance`` header.
    :param slots: at most this many POSTs are under way at once; as many idle connections are kept.
    :param trust: the CAs that may have signed the certificate of an https endpoint.
    :param headers: names and values, in ASCII, of further headers of each POST. Content-Type and
        User-Agent replace Dalga's own. `dalga.config` refuses all other names that Dalga sends.
    :param answers: what its answers mean. Of an answer by which a run has failed, some is kept.
    :param signer: signs its requests; None for requests without a signature.
    :param has_auth: whether no job may replace the header Authorization of `headers`.
    :raises ConfigError: if `baseurl`'s scheme or host can't be used.
    """

    def __init__(
        self,
        reactor: Any,
        baseurl: str,
        connect_timeout: float,
        instance: str,
        slots: int,
        trust: Trust,
        headers: Iterable[tuple[str, str]] = (),
        answers: Answers = _ANSWERS,
        signer: Signer | None = None,
        has_auth: bool = False,
        way: Way = STRAIGHT,
    ) -> None:
        headers = tuple(headers)
        self._reactor = reactor
        self._answers = answers
        #: No record has them, also where the endpoint echoes them.
        to_proxy = "" if way.proxy is None else way.proxy.authorization
        self._secrets = frozenset(secrets_of((*headers, ("Proxy-Authorization", to_proxy))))
        self._route = Route(reactor, baseurl, connect_timeout, trust, way)
        self._path = urlsplit(baseurl).path.rstrip("/")
        self._instance = re.sub("[^!-~]", "?", instance)
        self._signer = signer
        self._has_auth = has_auth
        #: Header lines by their names in lower case, which a job's may replace.
        self._lines = {
            "content-type": "Content-Type: text/plain",
            "user-agent": f"User-Agent: dalga/{__version__}",
            **_lines(headers),
        }
        #: The parts of each plain request that are the same for all runs: before the job's path,
        #: and between the path and the run's own headers.
        self._before_path = f"{Method.POST} {self._path}"
        self._after_path = self._above_run(self._lines)
        #: Whether plain requests say their trace. A header of the configuration goes before ours.
        self._has_trace = _TRACE not in self._lines
        self._pool = Pool(reactor, self._route, slots)
        self._baseurl = baseurl
        self._client = Client(self._pool)
        self._steers = Steers()

    def post(self, run: Run) -> Deferred[Outcome]:
        """
        Make one attempt of a run.

        The Deferred never fails. It fires within the run's time-out, counted from this call;
        cancelling it gives an outcome too. Once it has fired, nothing more of the POST is sent or
        awaited (P3).
        """
        # Before the request is written and signed: a signature of much content takes a while, which
        # is a part of the run's time-out, too (P3).
        exchange = Exchange(self._reactor, self._route, b"", run.timeout)
        answer: Deferred[Any]
        try:
            if run.delivery is PLAIN:
                exchange.octets = self._message(run)
            else:
                exchange.octets, exchange.content = self._head_and_content(run)
            answer = self._client.request("POST", self._baseurl, data=exchange)
        except Exception:
            exchange.abandon()
            answer = fail()
        about = exchange, run
        return answer.addCallbacks(self._answered, self._failed, about, {}, about)

    @property
    def certificate_expires(self) -> datetime | None:
        """
        When the certificate ends that the endpoint showed at the last TLS handshake (aware, UTC);
        None before the first, and without TLS.
        """
        return self._route.certificate_expires

    def stop_resolving(self) -> None:
        """
        End the POSTs that wait for the resolver. Nothing of them was sent, so this daemon or
        another may make the run's next attempt at once.
        """
        self._route.lookup.give_up()

    @property
    def busy(self) -> bool:
        """Whether a POST is under way."""
        return self._pool.busy

    def resize(self, slots: int) -> None:
        """At most this many POSTs are under way at once, from now on: see the class."""
        self._pool.resize(slots)

    def retire(self) -> Deferred[None]:
        """
        Another endpoint has this one's place. Its POSTs under way go on to their end, look-ups of
        the host among them.

        :return: fires when the idle connections are closed.
        """
        return self._pool.close()

    def close(self) -> Deferred[None]:
        """
        Close the idle connections, and keep no connection from now on. POSTs under way go on to
        their end.

        :return: fires when the idle connections are closed, which takes little more than
            `dalga.outgoing.wire.CLOSING` seconds at most.
        """
        self._route.lookup.close()
        return self._pool.close()

    def _message(self, run: Run) -> bytes:
        """The whole POST of a run whose delivery is `PLAIN`, as RFC 9112 section 2.1 has it."""
        body = run.payload
        trace = f"{_TRACE}: {traceparent(run.id, run.attempt)}\r\n" if self._has_trace else ""
        signed = "" if self._signer is None else self._signer.lines(run.id, body)
        head = (
            f"{self._before_path}{target_path(run.key.path)}{self._after_path}"
            f"Dalga-Sched: {timestamp(run.scheduled)}\r\n"
            f"Dalga-Run: {run.id}\r\n"
            f"Dalga-Attempt: {run.attempt}\r\n"
            f"{trace}"
            f"{signed}"
            f"Content-Length: {len(body)}\r\n"
            "\r\n"
        )
        return head.encode("ascii") + body

    def _head_and_content(self, run: Run) -> tuple[bytes, bytes]:
        """
        The request of any run, in two parts.

        A request without content has neither a Content-Type nor a Content-Length. Content of no
        octets is content: a server that awaits some may refuse a POST without a length (RFC 9110
        section 8.6).

        :raises PostFailed: if the job has a header that can't be sent.
        """
        delivery = run.delivery
        lines = self._lines | _lines(self._checked(_own_headers(delivery)))
        length = ""
        content = b""
        if has_content(delivery.method, delivery.payload):
            content = run.payload
            length = f"Content-Length: {len(content)}\r\n"
        else:
            del lines["content-type"]
        origin = delivery.replay_of
        replayed = "" if origin is None else f"Dalga-Replay-Of: {origin}\r\n"
        trace = ""
        if _TRACE not in lines:
            trace = f"{_TRACE}: {traceparent(run.id, run.attempt)}\r\n"
        signed = "" if self._signer is None else self._signer.lines(run.id, content)
        head = (
            f"{delivery.method} {self._path}{target_path(run.key.path)}{self._above_run(lines)}"
            f"Dalga-Sched: {timestamp(run.scheduled)}\r\n"
            f"Dalga-Run: {run.id}\r\n"
            f"Dalga-Attempt: {run.attempt}\r\n"
            f"{replayed}"
            f"{trace}"
            f"{signed}"
            f"{length}"
            "\r\n"
        )
        return head.encode("ascii"), content

    def _checked(self, headers: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """
        A job's headers. The API lets no header pass that would end its line, say how the request is
        framed, or pass for Dalga's own. A stranger's SQL may have written any.

        :raises PostFailed: for a header that can't be sent. The words have no value in them, which
            may be a secret.
        """
        for name, value in headers:
            if not is_name(name):
                raise unsendable("a header of the job has a name that none can have")
            if is_of_dalga(name) or is_of_signature(name) or not is_value(value):
                raise unsendable(f"the job's header {name} can't be sent")
            if self._has_auth and name.lower() == _AUTHORIZATION:
                raise unsendable(f"the job's header {name} can't be sent, as its endpoint has auth")
            yield name, value

    def _above_run(self, lines: Mapping[str, str]) -> str:
        """A request's head between the job's path and the run's own headers."""
        return (
            " HTTP/1.1\r\n"
            f"Host: {self._route.host_header}\r\n"
            + "".join(f"{line}\r\n" for line in lines.values())
            # A compressed body would have to be decompressed, to any size (P10).
            + "Accept-Encoding: identity\r\n"
            f"Dalga-Instance: {self._instance}\r\n"
        )

    # What comes of it

    def _answered(self, answer: Answer, exchange: Exchange, run: Run) -> Outcome:
        value = answer.header(b"retry-after")
        retry_after = None if value is None else parse_retry_after(value)
        elapsed = self._reactor.seconds() - exchange.began
        code, options = answer.code, run.options
        meaning, next_run = NOTHING
        if answer.mentions(PREFIX):
            meaning, next_run = self._steers.read(answer, run)
        means = self._answers.meaning(code, options) if meaning is None else meaning
        saved = None
        if means in FAILURES or options.save_response:
            saved = kept_of(answer, run.delivery, self._secrets)
        return Outcome(code, elapsed, "", retry_after, meaning, next_run, None, saved)

    def _failed(self, failure: Failure, exchange: Exchange, run: Run) -> Outcome:
        if isinstance(failure.value, PostFailed):
            why = failure.value.why
        else:
            where = self._route
            log.failure("a POST to {route} failed in an unexpected way", failure, route=where)
            why = MISTAKE
        elapsed = self._reactor.seconds() - exchange.began
        words = words_without(why.words, run.delivery, self._secrets)
        return Outcome(None, elapsed, words, kind=why.kind)


def _own_headers(delivery: Delivery) -> Iterator[tuple[str, str]]:
    """The headers that a job has in the place of its endpoint's."""
    of_payload = None if delivery.payload is None else _TYPES.get(delivery.payload.kind)
    if content_type := delivery.content_type or of_payload:
        yield "Content-Type", content_type
    yield from delivery.headers


def _lines(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Header lines by their names in lower case."""
    return {name.lower(): f"{name}: {value}" for name, value in headers}


def parse_retry_after(value: bytes) -> timedelta | datetime | None:
    """
    Read a Retry-After header (RFC 9110 section 10.2.3).

    :return: a delay, or an instant as aware UTC datetime; None if the value is neither. A delay
        longer than `MAX_RETRY_AFTER` is clamped to it.
    """
    value = value.strip()
    if re.fullmatch(rb"[0-9]+", value):
        digits = value.lstrip(b"0") or b"0"
        return MAX_RETRY_AFTER if len(digits) > 9 else timedelta(seconds=int(digits))
    if len(value) > 64:  # twice as long as a date of HTTP
        return None
    try:
        instant = parsedate_to_datetime(value.decode("ascii"))
        if instant.tzinfo is None:  # dates in asctime's form name no zone: they are in UTC
            return instant.replace(tzinfo=UTC)
        return instant.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
