"""
The routes. Each route reads the request, asks `Operations` and answers. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial
from http import HTTPStatus
from typing import Any

from klein import Klein
from twisted.python.failure import Failure
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import BaseConverter

from dalga.health import Health
from dalga.log import logger
from dalga.model.audit import LastChange
from dalga.model.job import Job, UnreadableJob
from dalga.model.permit import NOBODY, Caller, Scope
from dalga.model.record import Record
from dalga.model.runlist import RunQuery
from dalga.operations import Operations
from dalga.web.actions import action_json, action_list, action_request, actions_json
from dalga.web.alerts import alert_list, alerts_json
from dalga.web.audit import audit_json, audit_list, last_change_members, next_entries
from dalga.web.bodies import FORM, JSON, MERGE_PATCH, check_payload, media_type
from dalga.web.conditional import etag
from dalga.web.cursors import View, cursor_text
from dalga.web.errors import NotReady, problem_of, unexpected
from dalga.web.lists import listing, next_page
from dalga.web.needs import NEEDS
from dalga.web.page import FILES, FRONT, PAGE_HEADERS, visitor_json
from dalga.web.parameters import (
    JOBS,
    changes,
    enablement,
    job_key,
    job_path,
    job_target,
    no_job,
    once_request,
    owner_key,
    preview,
    refuse_parameters,
    run_times,
    schedule_request,
)
from dalga.web.presentation import (
    HasSecrets,
    all_secrets,
    endpoints_json,
    job_json,
    page_json,
    run_times_json,
    status_json,
    why_json,
)
from dalga.web.request import ApiRequest
from dalga.web.runs import (
    job_run_list,
    last_run_members,
    next_cursor,
    next_runs,
    run_id_of,
    run_json,
    run_list,
    runs_json,
)
from dalga.web.sessions import token_of_login
from dalga.web.statistics import instances_json, series_json, statistics

log = logger(__name__)

CONTENT_TYPE = f"{JSON}; charset=utf-8"

HEALTHY, READY = b'{"status":"ok"}', b'{"status":"ready"}'


class _Path(BaseConverter):
    """One segment, which is no job's yet: jobs are made below it."""

    regex = "[^/]+"


class _Job(BaseConverter):
    """
    A job's two segments, empty ones too: `job_key` says what is wrong with these.

    A sub-resource of a job is one more route, ``/jobs/<job:target>/<its name>``.
    """

    regex = "[^/]*/[^/]*"
    part_isolating = False


class _App(Klein):
    """Klein, which tells each request its route."""

    @cached_property
    def _names(self) -> Mapping[str, str]:
        """The routes as the metrics name them, by the name of what answers."""
        named = {}
        for rule in self.url_map.iter_rules():
            named[rule.endpoint] = rule.rule.replace("<job:target>", "<path>/<body>").replace(
                "<path:target>", "<path>"
            )
        return named

    def execute_endpoint(self, endpoint: str, request: Any, *args: Any, **kwargs: Any) -> Any:
        """
        Called with each request that has a route.

        :raises Forbidden: for a caller that has not what the route takes.
        :raises KeyError: for a route of which `NEEDS` does not say what it takes.
        """
        request.route = self._names[endpoint]
        NEEDS[endpoint].check(request.caller)
        return super().execute_endpoint(endpoint, request, *args, **kwargs)


class Api:
    """The HTTP interface to `operations`, and to `health`."""

    app = _App()
    app.url_map.converters["job"] = _Job
    app.url_map.converters["path"] = _Path
    app.url_map.merge_slashes = False  # an empty segment is refused, not redirected

    def __init__(self, operations: Operations, health: Health) -> None:
        self._operations = operations
        self._health = health

    @app.route("/jobs/<job:target>", methods=["PUT"])
    async def schedule(self, request: ApiRequest, target: str) -> bytes:
        """Write a job, new or over the one that is there."""
        key = job_key(request.path)
        parameters = schedule_request(request.query, request.content_type, request.body, key)
        job = await self._operations.schedule(request.caller, key, parameters, request.precondition)
        return self._answer(request, HTTPStatus.CREATED, job)

    @app.route("/jobs/<job:target>", methods=["GET"])
    async def get(self, request: ApiRequest, target: str) -> bytes:
        """Show a job. Its ETag is that of its definition, and it shows more: so there is no 304."""
        shown = await self._operations.show(request.caller, job_key(request.path))
        return self._answer(request, HTTPStatus.OK, *shown)

    @app.route("/jobs/<job:target>", methods=["POST"])
    async def trigger(self, request: ApiRequest, target: str) -> bytes:
        """Run a job now. Parameters and body are ignored, as in the Go original."""
        request.refuse_preconditions()
        request.refuse_idempotency()
        job = await self._operations.trigger(request.caller, job_key(request.path))
        # The Go original has no charset in this answer.
        return request.answer(HTTPStatus.OK, JSON, self._job(request, job))

    @app.route("/jobs/<job:target>", methods=["DELETE"])
    async def cancel(self, request: ApiRequest, target: str) -> bytes:
        """Delete a job, or make sure that there is none."""
        await self._operations.cancel(request.caller, job_key(request.path), request.precondition)
        return request.answer(HTTPStatus.NO_CONTENT)

    @app.route("/jobs/<job:target>", methods=["PATCH"])
    async def change(self, request: ApiRequest, target: str) -> bytes:
        """Change some of a job's parameters; or let it run again, or keep it from running."""
        key = job_key(request.path)
        wanted = request.precondition
        job: Job | UnreadableJob
        if media_type(request.content_type) == MERGE_PATCH:
            given = changes(request.query, request.body, key)
            job = await self._operations.patch(request.caller, key, given, wanted)
            return self._answer(request, HTTPStatus.OK, job)
        wish = enablement(request.query, request.content_type, request.body)
        if wish.enable:
            job = await self._operations.enable(request.caller, key, wanted)
        else:
            job = await self._operations.disable(request.caller, key, wish.reason, wanted)
        return self._answer(request, HTTPStatus.OK, job)

    @app.route("/jobs/<path:target>", methods=["POST"])
    async def once(self, request: ApiRequest, target: str) -> bytes:
        """Run a payload once, as a new job with a generated name."""
        path = job_path(request.path)
        request.refuse_preconditions()
        check_payload(request.body, self._operations.allowed.max_payload)
        parameters = once_request(request.query, request.content_type, request.body)
        job = await self._operations.once(request.caller, path, parameters, request.idempotency)
        answer = self._answer(request, HTTPStatus.CREATED, job)
        request.locate(job_target(job.key))
        return answer

    @app.route("/jobs/<job:target>/upcoming", methods=["GET"])
    async def run_times(self, request: ApiRequest, target: str) -> bytes:
        """List a job's next run times."""
        key = owner_key(request.path)
        asked = run_times(request.query)
        times = await self._operations.run_times(request.caller, key, asked.limit, asked.after)
        return request.answer(HTTPStatus.OK, CONTENT_TYPE, run_times_json(times))

    @app.route("/jobs/<job:target>/why", methods=["GET"])
    async def why(self, request: ApiRequest, target: str) -> bytes:
        """Say why a job is not running now."""
        key = owner_key(request.path)
        why = await self._operations.why(request.caller, key)
        return request.answer(HTTPStatus.OK, CONTENT_TYPE, why_json(key, why))

    @app.route("/jobs/<job:target>/runs", methods=["GET"])
    async def job_runs(self, request: ApiRequest, target: str) -> bytes:
        """List the runs of a job, a page at a time."""
        view = request.view
        query = job_run_list(request.query, owner_key(request.path), view)
        return await self._runs(request, query, view, is_of_job=True)

    @app.route("/runs", methods=["GET"])
    async def runs(self, request: ApiRequest) -> bytes:
        """List runs, a page at a time."""
        view = request.view
        return await self._runs(request, run_list(request.query, view), view, is_of_job=False)

    @app.route("/runs/<run_id>", methods=["GET"])
    async def run(self, request: ApiRequest, run_id: str) -> bytes:
        """Show a run with all that is known of it."""
        run = await self._operations.run(request.caller, run_id_of(run_id))
        has_secrets = _has_secrets(request)(run.record.path, run.record.endpoint)
        return request.answer(HTTPStatus.OK, CONTENT_TYPE, run_json(run, has_secrets))

    @app.route("/jobs", methods=["GET"])
    async def page(self, request: ApiRequest) -> bytes:
        """List jobs, a page at a time."""
        view = request.view
        query = listing(request.query, view)
        page = await self._operations.page(request.caller, query)
        last = page.last
        cursor = None if last is None else cursor_text(last, query.filters, view.seal)
        problem_of = self._operations.allowed.problem
        shown = page_json(page, cursor, problem_of, _has_secrets(request))
        body = request.answer(HTTPStatus.OK, CONTENT_TYPE, shown)
        if cursor is not None:
            link = next_page(query, cursor)
            request.responseHeaders.setRawHeaders(b"Link", [link.encode("ascii")])
        return body

    @app.route("/runs/<run_id>/replay", methods=["POST"])
    async def replay(self, request: ApiRequest, run_id: str) -> bytes:
        """Repeat a run, as a job of its own."""
        request.refuse_preconditions()
        request.refuse_idempotency()
        refuse_parameters(request.query, request.body)
        job = await self._operations.replay(request.caller, run_id_of(run_id))
        answer = self._answer(request, HTTPStatus.CREATED, job)
        request.locate(job_target(job.key))
        return answer

    @app.route("/actions", methods=["POST"])
    async def act(self, request: ApiRequest) -> bytes:
        """Begin an action on many jobs or runs."""
        request.refuse_preconditions()
        request.refuse_idempotency()
        wanted = action_request(request.query, request.content_type, request.body)
        action = await self._operations.act(request.caller, wanted)
        body = request.answer(HTTPStatus.ACCEPTED, CONTENT_TYPE, action_json(action))
        request.locate(b"/actions/" + action.id.encode())
        return body

    @app.route("/actions", methods=["GET"])
    async def actions(self, request: ApiRequest) -> bytes:
        """List the actions that were begun last."""
        actions = await self._operations.actions(request.caller, action_list(request.query))
        return request.answer(HTTPStatus.OK, CONTENT_TYPE, actions_json(actions))

    @app.route("/actions/<id>", methods=["GET"])
    async def action(self, request: ApiRequest, id: str) -> bytes:
        """Show how far an action is."""
        action = await self._operations.action(request.caller, id)
        return request.answer(HTTPStatus.OK, CONTENT_TYPE, action_json(action))

    @app.route("/actions/<id>", methods=["DELETE"])
    async def stop_action(self, request: ApiRequest, id: str) -> bytes:
        """Stop an action."""
        request.refuse_preconditions()
        action = await self._operations.stop_action(request.caller, id)
        return request.answer(HTTPStatus.OK, CONTENT_TYPE, action_json(action))

    @app.route("/preview", methods=["GET"])
    async def preview(self, request: ApiRequest) -> bytes:
        """List the run times that a job would have."""
        parameters, asked = preview(request.query)
        times = await self._operations.preview(request.caller, parameters, asked.limit, asked.after)
        return request.answer(HTTPStatus.OK, CONTENT_TYPE, run_times_json(times))

    @app.route("/status", methods=["GET"])
    async def status(self, request: ApiRequest) -> bytes:
        """Count the jobs."""
        status = await self._operations.status(request.caller)
        return request.answer(HTTPStatus.OK, CONTENT_TYPE, status_json(status))

    @app.route("/stats", methods=["GET"])
    async def statistics(self, request: ApiRequest) -> bytes:
        """Show how many runs there were, how late they were and how long they took."""
        query = statistics(request.query, self._operations.now())
        series = await self._operations.statistics(request.caller, query)
        return request.answer(HTTPStatus.OK, CONTENT_TYPE, series_json(series))

    @app.route("/instances", methods=["GET"])
    async def instances(self, request: ApiRequest) -> bytes:
        """List the instances."""
        found = await self._operations.instances(request.caller)
        shown = instances_json(found, self._operations.instance)
        return request.answer(HTTPStatus.OK, CONTENT_TYPE, shown)

    @app.route("/endpoints", methods=["GET"])
    async def endpoints(self, request: ApiRequest) -> bytes:
        """List the endpoints of the configuration."""
        seen = self._operations.endpoints(request.caller)
        shown = endpoints_json(seen, await self._operations.certificates())
        return request.answer(HTTPStatus.OK, CONTENT_TYPE, shown)

    @app.route("/", methods=["GET"])
    async def front(self, request: ApiRequest) -> bytes:
        """Show the page. What it loads stands beside it, so its URL ends with a slash."""
        if request.target_path.endswith(b"/"):
            return self._file(request, FRONT)
        request.locate(b"/")
        return request.answer(HTTPStatus.PERMANENT_REDIRECT)

    @app.route("/static/<name>", methods=["GET"])
    async def file(self, request: ApiRequest, name: str) -> bytes:
        """Show a file of the page."""
        if name not in FILES:
            raise NotFound()
        return self._file(request, name)

    @app.route("/login", methods=["GET"])
    async def visitor(self, request: ApiRequest) -> bytes:
        """Say who asks, as far as the page is concerned."""
        return self._visitor(request, request.visitor)

    @app.route("/login", methods=["POST"])
    async def log_in(self, request: ApiRequest) -> bytes:
        """Have a browser send a token by itself."""
        caller = await request.log_in(token_of_login(request.content_type, request.body))
        log.info("{by} has logged in from {address}", by=caller.name, address=caller.address)
        return self._visitor(request, caller)

    @app.route("/logout", methods=["POST"])
    async def log_out(self, request: ApiRequest) -> bytes:
        """Have a browser send a token no more."""
        request.log_out()
        return self._visitor(request, NOBODY)

    @app.route("/health", methods=["GET"])
    async def health(self, request: ApiRequest) -> bytes:
        """Say that the process is there, and its reactor turns."""
        return request.answer(HTTPStatus.OK, CONTENT_TYPE, HEALTHY)

    @app.route("/ready", methods=["GET"])
    async def ready(self, request: ApiRequest) -> bytes:
        """Say whether a request is likely to succeed now."""
        reason = await self._health.ready()
        if reason is not None:
            raise NotReady(f"this instance is not ready: {reason}")
        return request.answer(HTTPStatus.OK, CONTENT_TYPE, READY)

    @app.route("/metrics", methods=["GET"])
    async def metrics(self, request: ApiRequest) -> bytes:
        """Show what this instance counts, as Prometheus reads it."""
        body, content_type = await self._health.exposed(request.accept)
        return request.answer(HTTPStatus.OK, content_type, body)

    @app.route("/alerts", methods=["GET"])
    async def alerts(self, request: ApiRequest) -> bytes:
        """List the newest alerts."""
        newest = await self._operations.alerts(request.caller, alert_list(request.query))
        shown = alerts_json(newest, _has_secrets(request))
        return request.answer(HTTPStatus.OK, CONTENT_TYPE, shown)

    @app.route("/audit", methods=["GET"])
    async def audit(self, request: ApiRequest) -> bytes:
        """List what was changed by whom, a page at a time."""
        query = audit_list(request.query)
        page = await self._operations.audit(request.caller, query)
        cursor, link = next_entries(page, query)
        body = request.answer(HTTPStatus.OK, CONTENT_TYPE, audit_json(page, cursor))
        if link is not None:
            request.responseHeaders.setRawHeaders(b"Link", [link.encode("ascii")])
        return body

    @app.handle_errors(Exception)  # type: ignore[arg-type]
    def failed(self, request: ApiRequest, failure: Failure) -> bytes:
        """Answer with the error that a route raised, or Klein if there is no route."""
        error = failure.value
        if request.path.startswith(JOBS) and isinstance(error, NotFound | MethodNotAllowed):
            error = self._no_job(request, error)
        problem = None if error is None else problem_of(error)
        if problem is None:
            log.failure("{method} {path} failed", failure, method=request.method, path=request.path)
            problem = unexpected()
        return request.refuse(problem)

    def _file(self, request: ApiRequest, name: str) -> bytes:
        file = FILES[name]
        body = request.answer(HTTPStatus.OK, file.content_type, file.content)
        for header, value in PAGE_HEADERS:
            request.responseHeaders.setRawHeaders(header, [value])
        return body

    def _visitor(self, request: ApiRequest, caller: Caller) -> bytes:
        """Say who somebody is; a form leads back to the page."""
        if request.method == b"POST" and media_type(request.content_type) == FORM:
            request.locate(b"/")
            return request.answer(HTTPStatus.SEE_OTHER)
        shown = visitor_json(caller, bool(request.site.tokens), request.login_ends)
        return request.answer(HTTPStatus.OK, CONTENT_TYPE, shown)

    async def _runs(
        self, request: ApiRequest, query: RunQuery, view: View, is_of_job: bool
    ) -> bytes:
        page = await self._operations.runs(request.caller, query)
        cursor = next_cursor(page, query, view)
        body = request.answer(HTTPStatus.OK, CONTENT_TYPE, runs_json(page, cursor))
        if cursor is not None:
            link = next_runs(query, cursor, is_of_job)
            request.responseHeaders.setRawHeaders(b"Link", [link.encode("ascii")])
        return body

    def _answer(
        self,
        request: ApiRequest,
        status: HTTPStatus,
        job: Job | UnreadableJob,
        last_run: Record | None = None,
        last_change: LastChange | None = None,
    ) -> bytes:
        """Answer with a job and its ETag. A row that can't be understood has none."""
        shown = self._job(request, job, last_run, last_change)
        body = request.answer(status, CONTENT_TYPE, shown)
        if isinstance(job, Job):
            request.responseHeaders.setRawHeaders(b"ETag", [etag(job.version)])
        return body

    def _job(
        self,
        request: ApiRequest,
        job: Job | UnreadableJob,
        last_run: Record | None = None,
        last_change: LastChange | None = None,
    ) -> bytes:
        """The JSON of a job, as whoever asks may see it."""
        return job_json(
            job,
            self._operations.allowed.problem,
            None if last_run is None else last_run_members(last_run),
            None if last_change is None else last_change_members(last_change),
            _has_secrets(request),
        )

    def _no_job(self, request: ApiRequest, error: NotFound | MethodNotAllowed) -> Exception:
        """What is wrong with a request below ``/jobs/`` that no route matches."""
        methods = self.app.url_map.bind("localhost").allowed_methods("/jobs/path/body")
        # Klein takes a method in any case: `get` has a route, and is not to be refused here.
        method = request.method.decode("latin-1").upper()
        if isinstance(error, MethodNotAllowed):
            # A path alone takes a POST. A PUT to it most likely lacks the body, or has a slash too
            # many or too few.
            is_job = "/" in request.path[len(JOBS) :].decode("latin-1")
            return error if is_job or method not in methods else no_job()
        return no_job() if method in methods else MethodNotAllowed(methods)


def _has_secrets(request: ApiRequest) -> HasSecrets:
    if request.caller.may(Scope.READ_SECRETS):
        return all_secrets
    return partial(request.caller.may, Scope.READ_SECRETS)


#: The paths of the requests that need no token.
OPEN_PATHS = frozenset(
    path.encode("ascii")
    for rule in Api.app.url_map.iter_rules()
    if rule.endpoint in NEEDS and NEEDS[rule.endpoint].is_open
    for path in (
        [rule.rule.replace("<name>", name) for name in FILES]
        if rule.endpoint == "file"
        else [rule.rule]
    )
)
