"""
P12: secrets are seeded everywhere that secrets can be, a daemon does all that it can do, and then
its logs, answers, metrics, alerts and tables are searched for them.

The endpoint echoes whatever it is sent, as pages of errors do.
"""

from __future__ import annotations

import json
import os
import signal
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import treq
from twisted.internet.defer import Deferred, gatherResults

from dalga.config.sections import MySQLConfig
from dalga.model.permit import digest_of, new_token
from tests import proxies
from tests.certificates import Authority, write
from tests.daemons import Daemon, DaemonTestCase, Hit
from tests.receivers import Receiver, listen
from tests.stores import each_engine

#: Which secrets each table may have; the others, none. What an endpoint echoes of a job's own
#: values is kept with its run, for callers with `read-secrets`.
KEPT_BY = {"dalga": (), "dalga_details": ("redacted", "of_job"), "dalga_runs": ("of_job",)}


#: What callers without `read-secrets` are not shown.
HIDDEN = ("config", "redacted", "of_job")


class Seeds:
    """Secrets that nothing else is like. All that is said of one is its name."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}

    def new(self, name: str, text: str | None = None) -> str:
        """A secret, under a name that begins with its kind: config, redacted, of_job."""
        number = len(self.texts)
        text = text or f"s33d{number}x{name.encode().hex()}"
        self.texts[f"{name} ({number})"] = text
        return text

    def found(self, where: str, *kinds: str) -> list[str]:
        """The names of the secrets of some kinds that are in a text, in any of their forms."""
        return [
            name
            for name, text in self.texts.items()
            if name.startswith(kinds) and any(form in where for form in _forms(text))
        ]


def _forms(text: str) -> Iterator[str]:
    """A secret as it is, and as octets that are shown in base 16 or 64, at any place of theirs."""
    octets = text.encode()
    yield text
    yield octets.hex()
    yield octets.hex().upper()
    for shift in range(3):
        # Without the ends, which hang on what stands beside it.
        yield b64encode(bytes(shift) + octets).decode()[4:-4]


def echo(hit: Hit) -> tuple[int, dict[str, str], bytes]:
    """All of a request, in fields and in the body: 500 to paths that begin with `fail`."""
    lines = [f"{name}: {value}" for name, value in hit.headers.items()]
    fields = {f"X-Echo-{number}": line for number, line in enumerate(lines) if len(line) < 200}
    fields["X-Echo-Body"] = hit.body.replace("\n", " ")[:200]
    body = "\n".join([*lines, "", hit.body])
    return 500 if hit.path.startswith("fail") else 200, fields, body.encode()


class LeakTestCase(DaemonTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.seeds = Seeds()
        self.endpoint.answer = echo
        self.receiver = Receiver()
        port = listen(self.reactor, self.receiver)
        self.addCleanup(port.stopListening)
        self.receives_at = f"127.0.0.1:{port.getHost().port}"
        self.tokens = {
            name: self.seeds.new(f"config token {name}", new_token(f"{name:>32}".encode()))
            for name in ("admin", "read", "read-secrets", "trigger", "write", "metrics")
        }
        self.proxy = proxies.Proxy(self.reactor, proxies.connects())
        through: Any = self.reactor.listenTCP(0, self.proxy, interface="127.0.0.1")
        self.addCleanup(through.stopListening)
        self.proxy_port = through.getHost().port
        if isinstance(self.config, MySQLConfig):
            self.seeds.new("config password", self.config.password)
        #: That of the last answer.
        self.cookie = ""
        #: All that callers without `read-secrets` were answered, and what others were.
        self.answers = ""
        self.answers_to_trusted = ""

    def secret_file(self, name: str, text: str) -> str:
        path = Path(self.folder, name)
        path.write_text(text + "\n", encoding="utf-8")
        path.chmod(0o600)
        return str(path.absolute())

    def signing(self, name: str) -> str:
        """A secret that signs; what is looked for is its octets, and its text."""
        octets = f"{name:>32.32}".encode()
        return "whsec_" + self.seeds.new(f"config {name}", b64encode(octets).decode())

    def sections(self, **more: Mapping[str, object]) -> dict[str, dict[str, object]]:
        """A configuration with a secret in each place that takes one."""
        new = self.seeds.new
        port = self.baseurl.rpartition(":")[2]
        user = f"user:{new('config userinfo')}@"
        certificate, key = write(
            Authority().issue(common_name="dalga"), *(f"{self.folder}/{n}.pem" for n in "ck")
        )
        certificate, key = os.path.abspath(certificate), os.path.abspath(key)
        new("config key", Path(key).read_text().splitlines()[1])
        endpoints: dict[str, dict[str, object]] = {
            "": {"baseurl": f"http://{user}127.0.0.1:{port}", "secrets": self.signing("signs")},
            "bearer": {
                "baseurl": self.baseurl,
                "auth": "bearer",
                "authSecretFile": self.secret_file("bearer", new("config bearer")),
                "secretsFile": self.secret_file("signs", self.signing("signs from a file")),
            },
            "basic": {
                "baseurl": self.baseurl,
                "auth": "basic",
                "authUser": "basic",
                "authSecret": new("config basic"),
                "proxy": f"http://proxied:{new('config proxy')}@127.0.0.1:{self.proxy_port}",
            },
            # Nobody is there, and one that knows no TLS.
            "nobody": {"baseurl": f"http://nobody:{new('config nobody')}@127.0.0.1:1/"},
            "tls": {
                "cert": certificate,
                "key": key,
                "timeout": "500ms",
                "baseurl": self.baseurl.replace(
                    "http:", f"https://tls:{new('config tls')}@"
                ).replace("@//", "@"),
            },
        }
        wanted: dict[str, dict[str, object]] = {
            f"endpoint {name}".strip(): {"timeout": "60s", **keys}
            for name, keys in endpoints.items()
        }
        for name in ("", "bearer"):
            wanted[
                f"endpoint {name} headers".replace("  ", " ") if name else "endpoint.headers"
            ] = {
                "X-Api-Key": new(f"config header {name}"),
                "X-Plain": new(f"config plain header {name}"),
            }
        wanted["alerts"] = {
            "url": f"http://told:{new('config alerts user')}@{self.receives_at}/"
            f"{new('config alerts path')}?key={new('config alerts key')}",
            "secrets": self.signing("signs alerts"),
            "heartbeatUrl": f"http://{self.receives_at}/{new('config heartbeat')}",
        }
        wanted["alerts lost"] = {
            "url": f"http://lost:{new('config lost user')}@127.0.0.1:1/{new('config lost')}"
        }
        wanted["tokens"] = {
            f"the-{name}": f"{name} sha256:{digest_of(text.encode()).hex()}"
            for name, text in self.tokens.items()
        }
        wanted["jobs"] = {"retryInterval": "50ms", "retryStopAfter": "100ms"}
        for section, keys in more.items():
            wanted.setdefault(section, {}).update(keys)
        return wanted

    async def ask(
        self, method: str, url: str, caller: str, logged_in: bool = True, **given: Any
    ) -> tuple[int, str]:
        """
        One request; its whole answer is kept, to be searched.

        :param caller: the name of a token.
        :param logged_in: whether the token is sent with it.
        """
        headers = given.pop("headers", {})
        if logged_in:
            headers = {"Authorization": f"Bearer {self.tokens.get(caller)}", **headers}
        if "json" in given:
            headers["Content-Type"] = "application/json"
            given["data"] = json.dumps(given.pop("json")).encode()
        response = await self.request(method, url, headers=headers, **given)
        text = await response.text("utf-8")
        # The cookie of a login has the token in it, and goes to whoever has just sent the token.
        self.cookie = (response.headers.getRawHeaders("Set-Cookie") or [""])[0].partition(";")[0]
        response.headers.removeHeader("Set-Cookie")
        whole = f"{method} {url} {caller}\n{dict(response.headers.getAllRawHeaders())}\n{text}\n"
        if caller in ("admin", "read-secrets"):
            self.answers_to_trusted += whole
        else:
            self.answers += whole
        return response.code, text

    def request(self, method: str, url: str, **given: Any) -> Any:
        return treq.request(method, url, persistent=False, allow_redirects=False, **given)

    def tables(self) -> dict[str, str]:
        """All that stands in each table; octets are shown as the text that they are."""
        found = {}
        if self.engine == "sqlite":
            names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'dalga%'"
        else:
            names = "SHOW TABLES"
        with closing(self.connect()) as connection:
            cursor = connection.cursor()
            cursor.execute(names)
            for (name,) in cursor.fetchall():
                cursor.execute(f"SELECT * FROM {name}")
                found[name] = "\n".join(" ".join(map(_text, row)) for row in cursor.fetchall())
        return found

    def assert_kept(self, daemons: list[Daemon]) -> None:
        """Nothing has leaked. What is said to be wrong names secrets, and shows none."""
        leaks = {}
        for number, daemon in enumerate(daemons):
            leaks[f"the log of {number}"] = self.seeds.found(
                daemon.output, "config", "redacted", "of_job"
            )
        leaks["answers to others"] = self.seeds.found(self.answers, *HIDDEN)
        leaks["answers to the trusted"] = self.seeds.found(
            self.answers_to_trusted, "config", "redacted"
        )
        told = "\n".join(sent.text for sent in self.receiver.sent)
        leaks["alerts"] = self.seeds.found(told, "config", "redacted", "of_job")
        for table, text in self.tables().items():
            kinds = {"config", "redacted", "of_job"} - {*KEPT_BY.get(table, ())}
            leaks[table] = self.seeds.found(text, *kinds)
        said = [f"{place}: {', '.join(names)}" for place, names in leaks.items() if names]
        self.assertEqual(said, [], "\n".join(said))


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


@each_engine(globals())
class LeakTests(LeakTestCase):
    async def test_whole_run(self) -> None:
        """With logs in text and in JSON, all lines of it."""
        for form in ("text", "json"):
            sections = self.sections(log={"format": form, "level": "debug"})
            daemon, url = await self.start(**sections)
            await self.use(url, form)
            await self.scrape_all(url, form)
            self.ini(**self.sections(log={"format": form, "level": "debug"}))
            daemon.send(signal.SIGHUP)
            await daemon.says("changed: ")
            await self.scrape_all(url, form)
            daemon.send(signal.SIGTERM)
            await daemon.ended
        for what in ("fail", "ok"):  # the daemons have done what there is to be searched
            self.assertIn(what, self.answers_to_trusted)
        self.assertIn("x-echo-", self.answers_to_trusted.lower())
        for kind in ("of_job", "config", "redacted"):
            seen = "\n".join(f"{hit.headers} {hit.body}" for hit in self.endpoint.hits)
            self.assertTrue(self.seeds.found(seen, kind), kind)
        self.assertTrue(self.seeds.found(self.answers_to_trusted, "of_job"))
        self.assert_kept(self.daemons)

    async def log_in(self, url: str) -> None:
        """As browsers do, by JSON and by a form: with each token, and with a wrong one."""
        wrong = self.seeds.new("config wrong login")
        for caller, token in {**self.tokens, "nobody": wrong}.items():
            for given in (
                {"json": {"token": token}},
                {"data": {"token": token}},
            ):
                status, text = await self.ask(
                    "POST", f"{url}/login", caller, logged_in=False, **given
                )
                self.assertIn(status, (401,) if caller == "nobody" else (200, 303), text)
            headers = {"Cookie": self.cookie, "Sec-Fetch-Site": "same-origin"}
            for method, target in (("GET", "/login"), ("GET", "/jobs"), ("POST", "/logout")):
                status, text = await self.ask(
                    method, f"{url}{target}", caller, logged_in=False, headers=headers
                )
                if caller == "admin":
                    self.assertEqual(status, 200, text)

    async def use(self, url: str, form: str) -> None:
        """Jobs of each endpoint that fail, and that succeed; whatever can be done to them."""
        new = self.seeds.new
        made = []
        for endpoint in ("default", "bearer", "basic", "nobody", "tls"):
            for what in ("fail",) if endpoint in ("nobody", "tls") else ("ok", "fail"):
                for hides in (False, True):
                    kind = f"{'redacted' if hides else 'of_job'} {form} {endpoint} {what}"
                    key = f"{what}-{endpoint}/{form}{int(hides)}"
                    job: dict[str, Any] = {
                        "one_off": True,
                        "immediate": True,
                        "on_end": "keep",
                        "save_response": True,
                        "alert_after": 1,
                        "payload": {"secret": new(f"{kind} payload")},
                        "headers": {
                            "X-Api-Key-Of-Job": new(f"{kind} key"),
                            "X-Of-Job": new(f"{kind} header"),
                        },
                    }
                    if endpoint != "default":
                        job["endpoint"] = endpoint
                    if endpoint in ("nobody", "tls"):
                        job["alert_url"] = "lost"
                    if hides:
                        job["redact"] = ["payload", "x-of-job", "x-api-key-of-job"]
                    status, answer = await self.ask("PUT", f"{url}/jobs/{key}", "admin", json=job)
                    self.assertEqual(status, 201, answer)
                    made.append(key)
        await self.until_ended(url, len(made), form)
        for key in made:
            await gatherResults(
                Deferred.fromCoroutine(self.ask("GET", f"{url}/jobs/{key}{more}", token))
                for token in ("read", "read-secrets", "trigger", "write")
                for more in ("", "/runs", "/why")
            )
            change = {"description": "changed", "payload": {"secret": new(f"redacted {key}")}}
            patch = {"Content-Type": "application/merge-patch+json"}
            await self.ask(
                "PATCH",
                f"{url}/jobs/{key}",
                "write",
                data=json.dumps(change if key.endswith("1") else {"description": "x"}).encode(),
                headers=patch,
            )
            await self.ask("POST", f"{url}/jobs/{key}", "trigger")
        _, shown = await self.ask("GET", f"{url}/runs?limit=200", "admin")
        for run in json.loads(shown)["runs"]:
            await self.ask("GET", f"{url}/runs/{run['run_id']}", "read")
            await self.ask("GET", f"{url}/runs/{run['run_id']}", "read-secrets")
            if run["path"] == "fail-default":
                await self.ask("POST", f"{url}/runs/{run['run_id']}/replay", "trigger")
        action = {"action": "trigger", "filter": {"path": "ok-default"}}
        await self.ask("POST", f"{url}/actions", "admin", json=action)
        await self.log_in(url)
        await self.wrong(url, form)

    async def wrong(self, url: str, form: str) -> None:
        """Requests with secrets in them that are refused."""
        new = self.seeds.new
        job = f"{url}/jobs/refused/{form}"
        for number, body in enumerate(
            (
                {"payload": new(f"redacted {form} w0"), "redact": ["payload"], "nothing": 1},
                {"payload": new(f"redacted {form} w1") * 9000, "one_off": True, "immediate": True},
                {"headers": {"X-A": new(f"redacted {form} w2") + "\r\n"}, "interval": 60},
                {"headers": {"Host": new(f"redacted {form} w3")}, "interval": 60},
                {"payload_base64": new(f"redacted {form} w4") + "!", "interval": 60},
            )
        ):
            status, answer = await self.ask("PUT", job, "admin", json=body)
            self.assertIn(status, (400, 413, 422), f"{number}: {answer}")
        for header in ("Bearer {}", "Bearer a {}", "Basic {}", "{}", "Bearer {}=="):
            secret = new(f"config wrong {form} {header}")
            status, _ = await self.ask(
                "GET", f"{url}/jobs", "none", headers={"Authorization": header.format(secret)}
            )
            self.assertEqual(status, 401)

    async def until_ended(self, url: str, number: int, form: str) -> None:
        """Wait until each of the jobs has a run that is over."""
        ended: set[tuple[str, str]] = set()
        while len(ended) < number:
            _, shown = await self.ask("GET", f"{url}/runs?limit=200", "read")
            runs = json.loads(shown)["runs"]
            ended = {(run["path"], run["body"]) for run in runs if run["result"]}
            await self.pause(0.1)

    async def scrape_all(self, url: str, form: str) -> None:
        """All that shows many things at once, to each caller."""
        await self.receiver.until(lambda: len(self.receiver.sent) > 3)
        for target in (
            "/jobs", "/jobs?limit=200", "/runs?limit=200", "/runs?result=given_up", "/actions",
            "/stats", "/status", "/instances", "/endpoints", "/alerts", "/audit", "/metrics",
            "/preview?interval=60", "/health", "/ready", "/", "/openapi.json",
        ):  # fmt: skip
            await gatherResults(
                Deferred.fromCoroutine(self.ask("GET", f"{url}{target}", token))
                for token in self.tokens
            )

    async def test_tracebacks(self) -> None:
        """What is logged of a defect shows where it is, and none of the values there."""
        broken = """
from dalga import operations, signature
from dalga.outgoing import wire

def fails(self, *arguments, **keywords):
    raise RuntimeError("a defect")

signature.Signer.lines = fails
operations.Operations.show = fails
"""
        ini = self.ini(**self.sections(log={"level": "debug"}))
        if self.engine != "sqlite":
            self.make_store().create_table()
        daemon = self.spawn("--config", ini, before=f"exec({broken!r})")
        url = await daemon.url()
        job = {
            "one_off": True,
            "immediate": True,
            "payload": self.seeds.new("of_job payload"),
            "headers": {"Authorization": self.seeds.new("of_job header")},
        }
        status, answer = await self.ask("PUT", f"{url}/jobs/a/b", "admin", json=job)
        self.assertEqual(status, 201, answer)
        status, _ = await self.ask("GET", f"{url}/jobs/a/b", "read")
        self.assertEqual(status, 500)
        await daemon.says("(?s)a defect.*a defect")
        self.assertIn("Traceback", daemon.output)
        self.assert_kept(self.daemons)


class SayingLeakTests(LeakTestCase):
    """What is said of a configuration."""

    engine = "sqlite"

    async def test_shown(self) -> None:
        ini = self.ini(**self.sections())
        daemon = self.spawn("--check-config", "--config", ini)
        self.assertEqual(await daemon.ended, 0, daemon.output)
        self.assertGreater(daemon.output.count("(hidden)"), 10)
        self.assert_kept(self.daemons)

    async def test_mistakes(self) -> None:
        """At the start, in --check-config, and at a reload."""
        token = new_token(bytes(32))
        wrong = {
            "[endpoint e{}]": [
                "baseurl = ftp://u:{}@127.0.0.1/",
                "baseurl = http://u:{}@h:x/",
                "baseurl = http://h/\nsecrets = whsec_{}!",
                "baseurl = http://h/\nsecrets = {}",
                "baseurl = http://h/\nproxy = socks://u:{}@127.0.0.1:1",
                "baseurl = http://h/\nauthSecret = {}",
                'baseurl = http://h/\nauth = bearer\nauthSecret = "{} x"',
                "baseurl = http://h/\nauthSecretFile = {}",
            ],
            "[endpoint.headers]": ['X-Api-Key = "{}\x01"', "Dalga-X = {}"],
            "[alerts t{}]": ["url = mailto:{}@example.org"],
            "[alerts]": ["heartbeatUrl = {}"],
            "[tokens]": ["ci = {}", f"cd = read {token}{{}}", "ce = read sha256:{}"],
        }
        good = self.ini()
        lines = [Path(good).read_text()]
        number = 0
        for section, mistakes in wrong.items():
            for at, mistake in enumerate(mistakes):
                number += 1
                if "{}" in section or at == 0:
                    lines.append(section.format(number))
                lines.append(mistake.format(self.seeds.new(f"config {number}")))
        self.seeds.new("config token", token)
        path = Path(self.folder, "wrong.ini").absolute()
        path.write_text("\n".join(lines))
        daemon = self.spawn("--config", good)
        await daemon.url()
        path.replace(good)
        daemon.send(signal.SIGHUP)
        await daemon.says(f"(?s)(stays as it was.*){{{number}}}")
        for option in ((), ("--check-config",)):
            refused = self.spawn(*option, "--config", good)
            self.assertEqual(await refused.ended, 1)
            self.assertEqual(refused.output.count(": ["), number, refused.output)
        key = self.secret_file(
            "key", f"-----BEGIN PRIVATE KEY-----\n{self.seeds.new('config key')}"
        )
        secure = {"baseurl": "https://127.0.0.1/", "cert": key, "key": key}
        refused = self.spawn("--check-config", "--config", self.ini(endpoint=secure))
        self.assertEqual(await refused.ended, 1, refused.output)
        self.assert_kept(self.daemons)
