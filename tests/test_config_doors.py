"""
The configuration of the doors: who comes in by which way, and how an endpoint and Dalga can be sure
of each other.
"""

from __future__ import annotations

from ipaddress import ip_network

from dalga.config.incoming import interface_of, parts_of
from dalga.config.load import load_config
from dalga.config.outgoing import Auth, Deny
from dalga.config.sections import EndpointConfig, ListenConfig
from dalga.model.address import address_of, is_loopback
from tests.configs import FORMATS, SIGNING, SIGNING_TOO, ConfigTestCase

#: What a token's line takes.
DIGEST = "sha256:" + "5" * 64

SIGNINGS = [f"whsec_{letter * 32}" for letter in "ABC"]


class ListenTests(ConfigTestCase):
    """``[listen]``: each value as text and as a list, and what is refused in which words."""

    def listen(self, key: str, text: str) -> ListenConfig:
        variables = {f"DALGA_LISTEN_{key.upper()}": text, "DALGA_LISTEN_ALLOWUNAUTHENTICATED": "1"}
        return load_config(None, variables).listen

    def check_refused(self, key: str, why: str, *texts: str) -> None:
        """Each text is refused for a reason, which names the wrong one of several."""
        name = f"DALGA_LISTEN_{key.upper()}"
        for text in texts:
            shown = "(not shown)" if "@" in text else f"is {text!r}"
            self.assertEqual(self.refusal(None, **{name: text}), f"{name} {shown}: {why}")

    def test_lists(self) -> None:
        """In TOML and YAML a list may stand for the text."""
        for ending, text in [
            (".ini", "[listen]\nhosts = a.example , 10.0.0.5\norigins = http://a, https://b"),
            (".toml", "[listen]\nhosts = ['a.example', '10.0.0.5']\norigins='http://a, https://b'"),
            (".yaml", "listen:\n  hosts: [a.example, 10.0.0.5]\n  origins: [http://a, https://b]"),
        ]:
            self.ending = ending
            listen = self.load(text).listen
            self.assertEqual(listen.hosts, ("a.example", "10.0.0.5"))
            self.assertEqual(listen.origins, ("http://a", "https://b"))
        self.ending = ".toml"
        for text, refusal in [
            ("hosts = ['a', 'b c']", "is a list: it has 'b c', but it takes names and addresses"),
            ("hosts = ['a', ['b']]", "is a list: it takes text, or a list of texts, so"),
            ("hosts = [true]", "is a list: it takes text, or a list of texts, so"),
            ("hosts = true", "is 'true': it takes text, or a list of texts, so"),
            ('hosts = ["a\\u0000"]', "is a list: it has 'a\\x00', but it has the control charac"),
            ("hosts = ['u@h']", "is a list: it takes names and addresses by which requests"),
        ]:
            self.assertIn(f"[listen] hosts {refusal}", self.refusal(f"[listen]\n{text}"))

    def test_endpoints(self) -> None:
        for text, endpoints in [
            ("", ()),
            ("tcp:1", ("tcp:1",)),
            ("tcp:1, unix:/run/a,b.sock", ("tcp:1", "unix:/run/a,b.sock")),
            (r"tcp6:1:interface=\:\:1,  ssl:2", (r"tcp6:1:interface=\:\:1", "ssl:2")),
            ("haproxy:tcp:1, tcp:1", ("haproxy:tcp:1", "tcp:1")),
        ]:
            self.assertEqual(self.listen("endpoint", text).endpoints, endpoints)
        why = (
            "it takes listening endpoints as Twisted writes them, such as "
            "tcp:34006:interface=127.0.0.1, ssl:34006:privateKey=key.pem:certKey=cert.pem, "
            "unix:/run/dalga.sock or systemd:domain=INET:index=0"
        )
        self.check_refused(
            "endpoint", why, "8080", "/run/a.sock", "tcp", "tcp:", ":1", "127.0.0.1:1"
        )

    def test_endpoints_instead_of_host_and_port(self) -> None:
        for text, host, port in [
            ("endpoint = unix:/a", "", 34006),
            ("endpoint = unix:/a\nhost = ::1", "::1", 34006),
            ("endpoint = unix:/a\nport = 1", "127.0.0.1", 1),
            ("endpoint =", "127.0.0.1", 34006),
        ]:
            listen = self.load(f"[listen]\n{text}").listen
            self.assertEqual((listen.host, listen.port), (host, port), text)

    def test_parts_of_endpoints(self) -> None:
        for text, parts in [
            ("tcp:1", ["tcp", "1"]),
            (r"unix:/a\:b:mode=660", ["unix", "/a:b", "mode=660"]),
            (r"a:b\\:c\\\:", ["a", "b\\", "c\\:"]),
            ("a::b", ["a", "", "b"]),
        ]:
            self.assertEqual(parts_of(text), parts)

    def test_interfaces(self) -> None:
        for text, interface in [
            ("tcp:1", "0.0.0.0"),
            ("tcp:1:interface=127.0.0.1", "127.0.0.1"),
            ("tcp:1:10.0.0.1", "10.0.0.1"),
            ("TCP:port=1:backlog=5:interface=localhost", "localhost"),
            ("tcp6:1", "::"),
            (r"tcp6:1:interface=\:\:1", "::1"),
            ("ssl:1:privateKey=a:certKey=b", "0.0.0.0"),
            ("ssl:1:interface=127.0.0.1", "127.0.0.1"),
            ("unix:/a", None),
            ("systemd:domain=INET:index=0", None),
            ("haproxy:tcp:1", None),
        ]:
            self.assertEqual(interface_of(text), interface, text)

    def test_hosts(self) -> None:
        for text, hosts in [
            ("Dalga.Example.ORG.", ("dalga.example.org",)),
            ("10.0.0.5,FD00:0::5", ("10.0.0.5", "fd00::5")),
            ("a, a, A", ("a",)),
            (" ", ()),
        ]:
            self.assertEqual(self.listen("hosts", text).hosts, hosts)
        why = (
            "it takes names and addresses by which requests call this daemon, without ports and "
            "brackets, such as dalga.example.org or 10.0.0.5"
        )
        self.check_refused("hosts", why, "a:80", "[::1]", "http://a", "*", "*.a", "ö", "a b", "u@a")
        self.assertIn(f"it has '', but {why}", self.refusal(None, DALGA_LISTEN_HOSTS="a,"))

    def test_origins(self) -> None:
        for text, origin in [
            ("https://Ops.Example.org", "https://ops.example.org"),
            ("HTTPS://a:443", "https://a"),
            ("http://a:80", "http://a"),
            ("http://a:443", "http://a:443"),
            ("http://[FD00:0::5]:8080", "http://[fd00::5]:8080"),
        ]:
            self.assertEqual(self.listen("origins", text).origins, (origin,))
        takes = (
            "it takes origins of pages, such as https://ops.example.org or http://localhost:8080"
        )
        self.check_refused(
            "origins", takes, "a", "https://a/", "https://a/x", "http://a?b", "ws://a"
        )
        self.check_refused("origins", takes, "http://u@a", "http://a:0", "http://a:99999")
        self.check_refused(
            "origins", takes, "http://a:99999", "http://ö", "https://", "http://[::1", "http://*.a"
        )
        self.check_refused("origins", f"this would let in any page, {takes}", "*", "null")

    def test_root_path(self) -> None:
        for text in ("", "/dalga", "/a/b.c", "/~a/..b", "/a/..."):
            self.assertEqual(self.listen("rootPath", text).root_path, text)
        why = (
            "it takes the path that all URLs of this daemon begin with, such as /dalga, which ends "
            "without a / and has nothing percent-encoded in it"
        )
        self.check_refused("rootPath", why, "/", "a", "/a/", "//a", "/a//b", "/a%20b", "/a b", "/ö")
        self.check_refused("rootPath", why, "/..", "/a/../b", "/.", "/a?b", "/a#b", "http://a/b")

    def test_trusted_proxies(self) -> None:
        for text, networks in [
            ("10.0.0.5", ["10.0.0.5/32"]),
            ("192.168.0.0/16, fd00::/8,::1", ["192.168.0.0/16", "fd00::/8", "::1/128"]),
        ]:
            found = self.listen("trustedProxies", text).trusted_proxies
            self.assertEqual(found, tuple(map(ip_network, networks)))
        why = "it takes addresses and networks, such as 10.0.0.5, 192.168.0.0/16 or fd00::/8"
        self.check_refused("trustedProxies", why, "proxy", "10.0.0.0/33", "10.0.0", "*", "::1%lo/1")
        self.check_refused("trustedProxies", "the network is written 10.0.0.0/8", "10.0.0.5/8")

    def test_metrics(self) -> None:
        for text, address in [
            ("", None),
            ("127.0.0.1:9464", ("127.0.0.1", 9464)),
            ("[::]:9464", ("::", 9464)),
            ("[::1]:0", ("::1", 0)),
            ("metrics.internal:0", ("metrics.internal", 0)),
        ]:
            config = load_config(None, {"DALGA_METRICS_LISTEN": text})
            self.assertEqual(config.metrics.listen, address)
        why = (
            "it takes a host and a port, such as 127.0.0.1:9464 or [::]:9464, and 0.0.0.0 or [::] "
            "for all of this machine's"
        )
        for text in (
            "9464",
            ":9464",
            "a",
            "a:",
            "::1",
            "::1:0",
            "a:70000",
            "a:-1",
            "a b:1",
            "[a]:1",
        ):
            refusal = self.refusal(None, DALGA_METRICS_LISTEN=text)
            self.assertEqual(refusal, f"DALGA_METRICS_LISTEN is {text!r}: {why}")

    def test_metrics_where_the_interface_is(self) -> None:
        for text in ("127.0.0.1:34007", "127.0.0.2:34006"):
            load_config(None, {"DALGA_METRICS_LISTEN": text})
        self.load("[metrics]\nlisten = 127.0.0.1:0\n[listen]\nport = 0")
        self.assertEqual(
            self.refusal("[metrics]\nlisten = [::1]:1\n[listen]\nhost = ::1\nport = 1"),
            "ini: [metrics] listen is '[::1]:1': the HTTP interface is there already, with "
            "/metrics; give another port, or leave it out",
        )


class OpenTests(ConfigTestCase):
    """P12: beyond loopback nothing is open, unless there are tokens, or somebody wants it open."""

    WHY = "anybody who can reach that address could do anything, as there are no tokens"

    def test_refused(self) -> None:
        for text in (
            "host = 0.0.0.0",
            "host = ::",
            "host = 10.0.0.5",
            "host = 2001:db8::1",
            "host = ::ffff:10.0.0.5",
            "endpoint = tcp:34006",
            "endpoint = tcp6:34006",
            "endpoint = unix:/a, ssl:34006:privateKey=a:certKey=b",
            "endpoint = tcp:34006:interface=10.0.0.5",
        ):
            key = text.partition(" ")[0]
            for ending, render in FORMATS:
                self.ending = ending
                value = text.partition("= ")[2]
                written = render({"listen": {key: (False, value)}})
                self.assertIn(f"[listen] {key} is {value!r}: {self.WHY}", self.refusal(written))
                allowed = render(
                    {"listen": {key: (False, value), "allowUnauthenticated": (True, "true")}}
                )
                self.assertEqual(self.load(allowed).notes, ())
                self.load(written, DALGA_TOKENS_CI=f"admin {DIGEST}")
        name = "DALGA_LISTEN_HOST"
        self.assertIn(f"{name} is '::': {self.WHY}", self.refusal(None, **{name: "::"}))

    def test_taken(self) -> None:
        """Loopback, a Unix socket, and what is known only when it is listened there."""
        for text in (
            "host = 127.0.0.1",
            "host = 127.1.2.3",
            "host = ::1",
            "host = ::ffff:127.0.0.1",
            "host = localhost",
            "host = a.localhost",
            "host = dalga.example.org",
            "endpoint = unix:/a",
            "endpoint = systemd:domain=INET:index=0",
            "endpoint = tcp:1:interface=127.0.0.1",
            r"endpoint = tcp6:1:interface=\:\:1",
        ):
            self.load(f"[listen]\n{text}")

    def test_allowed_in_vain(self) -> None:
        """Beside tokens the key would be misread."""
        config = self.load(
            f"[tokens]\nci = read {DIGEST}\n[listen]\nhost = ::\nallowUnauthenticated = yes"
        )
        (note,) = config.notes
        self.assertRegex(note, r"\[listen\] allowUnauthenticated is ignored: there are tokens")

    def test_loopback(self) -> None:
        for host, expected in [
            ("LOCALHOST", True),
            ("localhost.", True),
            ("a.localhost", True),
            ("notlocalhost", False),
            ("localhost.example.org", False),
            ("127.255.0.1", True),
            ("::1", True),
            ("::ffff:127.0.0.1", True),
            ("::ffff:10.0.0.1", False),
            ("0.0.0.0", False),
            ("::", False),
            ("fe80::1%lo", False),
        ]:
            self.assertEqual(is_loopback(host), expected, host)

    def test_addresses(self) -> None:
        """Several texts are the same address."""
        for text, expected in [
            ("10.0.0.1", "10.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("2001:DB8:0::1", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("010.0.0.1", "None"),
            ("localhost", "None"),
            ("", "None"),
        ]:
            self.assertEqual(str(address_of(text)), expected, text)


class EndpointTests(ConfigTestCase):
    """``[endpoint]``: how Dalga and an endpoint can be sure of each other."""

    def endpoint(self, **keys: str) -> EndpointConfig:
        variables = {f"DALGA_ENDPOINT_{key.upper()}": text for key, text in keys.items()}
        return load_config(None, variables).endpoint

    def check(self, text: str, *refusals: str) -> None:
        """The keys are refused, in an endpoint of either kind, with sentences for each mistake."""
        for heading in ("[endpoint]", "[endpoint billing]"):
            base = (
                "baseurl = https://h/\n" if "baseurl" not in text and "billing" in heading else ""
            )
            path = self.write(f"{heading}\n{base}{text}")
            error = self.refused(path)
            expected = [f"{path}: {heading} {refusal}" for refusal in refusals]
            shown = [mistake.replace(f"{path}: {heading} baseurl", "URL") for mistake in error]
            self.assertEqual(shown, expected)

    def test_secrets(self) -> None:
        one, other, third = SIGNINGS
        for text, secrets in [
            ("", ()),
            (one, (one,)),
            (f"{one} , {other}", (one, other)),
            (f"{one},{other},{SIGNING_TOO}", (one, other, SIGNING_TOO)),
            (f"{one}\n{other}", (one, other)),
            (f"{one},{one}", (one,)),
        ]:
            self.assertEqual(self.endpoint(secrets=text).secrets, secrets)
            variables = {"DALGA_ALERTS_URL": "http://h", "DALGA_ALERTS_SECRETS": text}
            self.assertEqual(load_config(None, variables).alerts.secrets, secrets)
        takes = (
            "(not shown): it takes whsec_ and the base64 of 24 to 64 random octets, or whsk_ and"
        )
        for text in (
            "s3cret",
            "whsec_",
            "whsec_s3cr%t",
            "whsec_QUFB",
            f"whsk_{one[6:]}AAAA",
            f"{one},x",
        ):
            for name in ("DALGA_ENDPOINT_SECRETS", "DALGA_ALERTS_SECRETS"):
                refusal = self.refusal(None, **{name: text})
                self.assertIn(f"{name} {takes}", refusal)
        refusal = self.refusal(None, DALGA_ENDPOINT_SECRETS=f"{one},{other},{third}")
        self.assertEqual(
            refusal,
            "DALGA_ENDPOINT_SECRETS (not shown): it takes 2 secrets of a kind at most: the new "
            "one, and the one that it replaces",
        )

    def test_secrets_in_a_list(self) -> None:
        self.ending = ".toml"
        config = self.load(f"[endpoint]\nsecrets = ['{SIGNING}', '{SIGNING_TOO}']")
        self.assertEqual(config.endpoint.secrets, (SIGNING, SIGNING_TOO))
        refusal = self.refusal(f"[endpoint]\nsecrets = ['{SIGNING}', 's3cret']")
        self.assertIn("toml: [endpoint] secrets is a list: it takes whsec_", refusal)
        self.assertNotIn("s3cret", refusal)

    def test_signatures_are_dalgas(self) -> None:
        for name in ("Webhook-Id", "webhook-timestamp", "WEBHOOK-SIGNATURE"):
            refusal = self.refusal(
                f"[endpoint.headers]\n{name} = s3cret", DALGA_ENDPOINT_SECRETS=SIGNING
            )
            self.assertEqual(
                refusal,
                f"ini: [endpoint.headers] {name} (not shown): Dalga sets this header by itself, as "
                "DALGA_ENDPOINT_SECRETS signs; leave one of the two out",
            )
            self.load(f"[endpoint.headers]\n{name} = mine")

    def test_auth(self) -> None:
        """It is a header, as a user in baseurl is."""
        for keys, value in [
            ({"auth": "bearer", "authSecret": "a.B-c_~+/9=="}, "Bearer a.B-c_~+/9=="),
            ({"auth": "BASIC", "authUser": "u", "authSecret": "p:q"}, "Basic dTpwOnE="),
            ({"auth": "basic", "authUser": "ş", "authSecret": "ö"}, "Basic xZ86w7Y="),
        ]:
            endpoint = self.endpoint(**keys)
            self.assertEqual(endpoint.headers, (("Authorization", value),))
            self.assertNotIn(value, repr(endpoint))
        self.assertEqual(self.endpoint(auth="none").headers, ())
        self.assertEqual(self.endpoint(auth="none", authSecret="").auth, Auth.NONE)
        self.assertEqual(
            self.refusal(None, DALGA_ENDPOINT_AUTH="digest"),
            "DALGA_ENDPOINT_AUTH is 'digest': it takes none, bearer or basic",
        )

    def test_auth_that_does_not_go_together(self) -> None:
        needs = "it needs auth, which is bearer or basic"
        for text, refusals in [
            ("authSecret = s3cret", [f"authSecret (not shown): {needs}"]),
            ("authUser = u", [f"authUser is 'u': {needs}"]),
            (
                "authUser = u\nauthSecret = s3cret",
                [f"authUser is 'u': {needs}", f"authSecret (not shown): {needs}"],
            ),
            (
                "auth = bearer",
                ["auth is 'bearer': it needs authSecret, the token or the password"],
            ),
            (
                "auth = basic",
                [
                    "auth is 'basic': it needs authSecret, the token or the password",
                    "auth is 'basic': it needs authUser, the name of the user",
                ],
            ),
            (
                "auth = bearer\nauthSecret = s3 cret\nauthUser = u",
                [
                    "authSecret (not shown): a bearer token has ASCII letters, digits and . _ ~ + "
                    "/ -, and = at its end",
                    "authUser is 'u': a bearer token has no user, leave it out, or give basic",
                ],
            ),
            (
                "auth = basic\nauthSecret = s3cret\nauthUser = a:b",
                ["authUser is 'a:b': a user name with a colon can't be sent, choose another"],
            ),
            (
                "auth = bearer\nauthSecret = s3cret\nbaseurl = https://u:s3cret@h/",
                [
                    "auth is 'bearer': URL has a user name and a password in it, leave one of the "
                    "two out"
                ],
            ),
        ]:
            self.check(text, *refusals)
        refusal = self.refusal(
            "[endpoint]\nauth = bearer\nauthSecret = s3cret",
            DALGA_ENDPOINT_HEADERS_AUTHORIZATION="s3cret",
        )
        self.assertEqual(
            refusal,
            "ini: [endpoint] auth is 'bearer': DALGA_ENDPOINT_HEADERS_AUTHORIZATION says the same, "
            "leave one of the two out",
        )

    def test_tls(self) -> None:
        plain = "with a baseurl that starts with http://, but with https://"
        for text, refusals in [
            (
                "baseurl = http://h/\nca = a\ncert = b\nkey = c\nverifyName = d",
                [
                    f"ca is 'a': nothing is checked against it {plain}",
                    f"cert is 'b': it is not shown {plain}",
                    f"key is 'c': it is not used {plain}",
                    f"verifyName is 'd': nothing is checked against it {plain}",
                ],
            ),
            (
                "baseurl = https://h/\ncert = a",
                [
                    "cert is 'a': it needs key, the file with its private key, which may be the "
                    "same file"
                ],
            ),
            (
                "baseurl = https://h/\nkey = a",
                ["key is 'a': it needs cert, the file with its certificate"],
            ),
            *(
                (
                    f"baseurl = https://h/\nverifyName = {name}",
                    [
                        f"verifyName is '{name}': it takes the name or the address that the "
                        "endpoint's certificate is for, without a port, such as billing.internal"
                    ],
                )
                for name in ("a:443", "https://a", "a b", "ö", "[::1]")
            ),
        ]:
            self.check(text, *refusals)
        endpoint = self.endpoint(
            baseurl="https://h/", cert="both.pem", key="both.pem", verifyName="fd00::5"
        )
        self.assertEqual((endpoint.cert, endpoint.cert_key), ("both.pem", "both.pem"))
        self.assertEqual(endpoint.verify_name, "fd00::5")

    def test_deny(self) -> None:
        for host in ("example.org", "93.184.216.34", "[2606:2800:220:1::1]", "localhost.example"):
            endpoint = self.endpoint(baseurl=f"http://{host}/", deny="Private")
            self.assertEqual(endpoint.deny, Deny.PRIVATE)
        for host in (
            "localhost",
            "a.localhost",
            "127.0.0.1",
            "10.0.0.5",
            "169.254.169.254",
            "[::1]",
        ):
            self.check(
                f"baseurl = http://{host}:80/\ndeny = private",
                "deny is 'private': the host of URL is such an address, so no POST would be sent; "
                "leave deny out, or give another host",
            )
        self.assertIn(
            "DALGA_ENDPOINT_DENY is 'private': the host of the default baseurl is such an address",
            self.refusal(None, DALGA_ENDPOINT_DENY="private"),
        )
        self.check(
            "baseurl = http://h/\ndeny = private\nproxy = http://p:1",
            "deny is 'private': with a proxy, the proxy looks up the host, and Dalga sees no "
            "address; leave deny or proxy out",
        )

    def test_bad_words(self) -> None:
        for key, takes in [("auth", "none, bearer or basic"), ("deny", "none or private")]:
            for text in ("", "yes", "private basic"):
                name = f"DALGA_ENDPOINT_{key.upper()}"
                self.assertEqual(
                    self.refusal(None, **{name: text}), f"{name} is {text!r}: it takes {takes}"
                )
        for text in ("0", "59s", "3651d", "soon"):
            refusal = self.refusal(None, DALGA_AUDIT_KEEP=text)
            self.assertIn(f"is {text!r}: it takes a duration from 1m to 3650d", refusal)
        for text in ("", "2", "open"):
            name = "DALGA_LISTEN_ALLOWUNAUTHENTICATED"
            self.assertEqual(
                self.refusal(None, **{name: text}), f"{name} is {text!r}: it takes true or false"
            )

    def test_proxy(self) -> None:
        for text, proxy, authorization in [
            ("", "", ""),
            ("http://p:3128", "http://p:3128", ""),
            ("http://p:3128/", "http://p:3128/", ""),
            ("http://u:p%40@p:3128", "http://p:3128", "Basic dTpwQA=="),
            ("http://[::1]:1", "http://[::1]:1", ""),
        ]:
            endpoint = self.endpoint(proxy=text)
            self.assertEqual((endpoint.proxy, endpoint.proxy_authorization), (proxy, authorization))
            self.assertNotIn("dTpwQA", repr(endpoint))
        for text in (
            "https://p:1",
            "socks5://p:1",
            "p:3128",
            "http://p/x",
            "http://p?x",
            "http://p:0",
        ):
            refusal = self.refusal(None, DALGA_ENDPOINT_PROXY=text)
            self.assertRegex(refusal, f"^DALGA_ENDPOINT_PROXY is {text!r}".replace("?", r"\?"))
            self.assertTrue(
                refusal.endswith("URL of a proxy, such as http://proxy.example.org:3128")
            )
        refusal = self.refusal(None, DALGA_ENDPOINT_PROXY="https://u:s3cret@p:1")
        self.assertTrue(refusal.startswith("DALGA_ENDPOINT_PROXY (not shown): it takes"), refusal)
