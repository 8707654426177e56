"""
A client that schedules, changes and deletes jobs, and remembers what was acknowledged.

What is not acknowledged is said again, to another instance, until it is: as an application would
that wants to know where it stands.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from random import Random
from time import time
from typing import Any
from urllib.parse import quote

import treq
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.web.client import Agent
from twisted.web.http_headers import Headers

from dalga.model.permit import new_token
from faults.history import SAYING, Key, Said, Says, Verb, says

#: How long an answer may take, in seconds: what the daemon promises, and some for the machine.
PROMPT = 5.0
LIMIT = 8.0

#: How often the stranger asks, in seconds: some may be slowed down, all of them not.
STRANGER = 0.5

#: A token that nobody has made.
UNKNOWN = new_token(bytes(32))

METHODS = {
    Verb.PUT: "PUT",
    Verb.TRIGGER: "POST",
    Verb.DISABLE: "PATCH",
    Verb.ENABLE: "PATCH",
    Verb.DELETE: "DELETE",
    Verb.AMEND: "PATCH",
}
SUCCESS = {Verb.PUT: 201, Verb.DELETE: 204}


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request."""

    #: None where there was none.
    status: int | None
    #: From the request until here, in seconds.
    took: float
    retry_after: str | None = None
    text: str = ""

    @property
    def shown(self) -> dict[str, Any]:
        """The job that it shows."""
        found: dict[str, Any] = json.loads(self.text)
        return found


class Client:
    """
    A stranger goes with it, who has no token, or one that nobody made, or one that is retired. The
    stranger deletes jobs now and then: nothing may come of that but a 401.

    :param urls: gives where the instances' interfaces are at the moment, without a last slash.
    :param token: is sent with each request; empty where everybody is let in, without a stranger.
    """

    def __init__(
        self, reactor: Any, urls: Callable[[], list[str]], random: Random, token: str
    ) -> None:
        self._reactor = reactor
        self._urls = urls
        self._random = random
        #: May be exchanged: the old one goes to `retired` when no instance takes it any more.
        self.token = token
        self.retired: list[str] = []
        #: What was answered to whom it should not have been.
        self.wrongly: list[str] = []
        #: How often the stranger got a 401, and when it asks again.
        self.kept_out = 0
        self._stranger_at = 0.0
        self._http = treq.client.HTTPClient(Agent(reactor, connectTimeout=LIMIT))
        self.said: list[Said] = []
        #: How often which status was answered; 0 for no answer.
        self.statuses: Counter[int] = Counter()
        #: The longest that an answer took, or was waited for, of an instance that was alive.
        self.slowest = 0.0
        #: When each answer came, and from where.
        self.answers: list[tuple[float, str]] = []
        #: Answers with 503 that had no Retry-After.
        self.without_retry_after = 0
        self._over = False
        #: How many PUTs have said what the job's requests are made of.
        self._saying = 0

    async def ask(
        self,
        method: str,
        target: str,
        url: str | None = None,
        parameters: Any = None,
        token: str | None = None,
    ) -> Answer:
        """
        One request, to one of the instances; gives what came back.

        :param parameters: are sent as JSON, by a PATCH as a merge patch (RFC 7396).
        :param token: another one than the client's; empty for none.
        """
        own = token is None
        token = self.token if token is None else token
        urls = self._urls()
        if url is None and not urls:
            await self.pause(0.2)
            return Answer(None, 0.0)
        url = url or self._random.choice(urls)
        asked = time()
        try:
            headers = Headers({"connection": ["close"]})
            if token:
                headers.addRawHeader("authorization", f"Bearer {token}")
            content = None
            if parameters is not None:
                kind = "merge-patch+json" if method == "PATCH" else "json"
                headers.addRawHeader("content-type", f"application/{kind}")
                content = json.dumps(parameters).encode()
            request = self._http.request(method, url + target, headers=headers, data=content)
            request.addTimeout(LIMIT, self._reactor)
            response = await request
            text = await treq.text_content(response, "utf-8").addTimeout(LIMIT, self._reactor)
        except Exception:  # whatever became of the instance, it is the same for an application
            self.statuses[0] += 1
            return Answer(None, time() - asked)
        took = time() - asked
        if not own:
            return Answer(response.code, took, None, text)
        if response.code == 401 and token == self.token:
            self.wrongly.append(f"{asked:.3f} {method} {target}: a valid token was refused")
        self.statuses[response.code] += 1
        self.answers.append((asked + took, url))
        self.slowest = max(self.slowest, took)
        (retry_after,) = response.headers.getRawHeaders("retry-after") or (None,)
        if response.code == 503 and retry_after is None:
            self.without_retry_after += 1
        return Answer(response.code, took, retry_after, text)

    async def say(
        self,
        verb: Verb,
        key: Key,
        interval: int = 0,
        delay: int = 0,
        url: str | None = None,
    ) -> bool:
        """
        Say it until it is acknowledged; whether it was.

        :param interval: of a PUT: seconds between two runs; 0 for a job that runs once.
        :param delay: of a PUT of a job that runs once: seconds until then.
        :param url: of the instance to which it is said; any, if not given.
        """
        path, body = key
        target = f"/jobs/{quote(path, safe='')}/{body}"
        parameters = saying = None
        says_it = path.endswith(SAYING) and self._random.random() < 0.75
        if verb in (Verb.PUT, Verb.AMEND) and says_it:
            parameters, saying = self._made(path)
        if verb is Verb.PUT:
            when: dict[str, Any] = {"interval": interval} if interval else {"one_off": True}
            if not interval:
                when |= {"interval": delay} if delay else {"immediate": True}
            parameters = {**when, **(parameters or {})}
        elif verb is Verb.AMEND:
            parameters = parameters or dict.fromkeys(("payload", "headers", "method", "tags"))
        elif verb in (Verb.DISABLE, Verb.ENABLE):
            target += f"?{verb}=true"
        word = Said(key, verb, 0.0, None, interval, interval or delay, says=saying)
        await self._meet_stranger(f"/jobs/{quote(path, safe='')}/{body}", url)
        while True:
            word = replace(word, asked=time())
            answer = await self.ask(METHODS[verb], target, url, parameters)
            if answer.status == SUCCESS.get(verb, 200):
                self.said.append(replace(word, answered=time(), next_run=_next_run(answer)))
                return True
            # With a 401 its token was exchanged meanwhile, and nothing was done.
            if answer.status is not None and 400 <= answer.status < 500 and answer.status != 401:
                # There is nothing that it could be done to.
                self.said.append(replace(word, answered=time(), refused=answer.status))
                return False
            self.said.append(word)
            if self._over:
                return False
            await self.pause(0.2)

    async def _meet_stranger(self, target: str, url: str | None) -> None:
        """Have the stranger delete a job, every `STRANGER` seconds."""
        if not self.token or time() < self._stranger_at:
            return
        self._stranger_at = time() + STRANGER
        token = self._random.choice(["", UNKNOWN, f"{self.token}x", *self.retired[-3:]])
        answer = await self.ask("DELETE", target, url, token=token)
        if answer.status == 401:
            self.kept_out += 1
        elif answer.status is not None:
            what = "a retired token" if token in self.retired else "no valid token"
            self.wrongly.append(f"DELETE {target}: {answer.status} for {what}")

    def _made(self, path: str) -> tuple[dict[str, Any], Says]:
        """Parameters that say what a job's requests are made of: as no others do."""
        self._saying += 1
        header = f"{path}:{self._saying}"
        content = f"{header} " * self._random.choice((1, 100, 2_000))
        method = self._random.choice(("POST", "PUT", "PATCH"))
        headers = {"X-Says": header}
        parameters = {"payload": content, "headers": headers, "method": method, "tags": [header]}
        return parameters, says(method, header, content.encode())

    async def put_many(
        self, keys: list[Key], interval: int = 0, delay: int = 0, url: str | None = None
    ) -> None:
        """PUT some jobs, sixteen at a time."""
        left = list(reversed(keys))

        async def some() -> None:
            while left:
                await self.say(Verb.PUT, left.pop(), interval, delay, url)

        await gatherResults([Deferred.fromCoroutine(some()) for _ in range(16)])

    async def meddle(self, keys: list[Key], seconds: float, pause: float = 0.05) -> None:
        """Say one thing after the other of some jobs, each of them by one of eight at once."""
        ends = time() + seconds

        async def of_some(mine: list[Key]) -> None:
            while time() < ends and not self._over:
                key = self._random.choice(mine)
                amends = 5 if key[0].endswith(SAYING) else 0
                verb = self._random.choices(list(Verb), (6, 2, 2, 3, 2, amends))[0]
                interval = self._random.choice((0, 1, 2, 3))
                delay = 0 if interval else self._random.choice((0, 1, 2))
                await self.say(verb, key, interval, delay)
                await self.pause(self._random.uniform(0, 16 * pause))

        groups = [keys[number::8] for number in range(8)]
        await gatherResults([Deferred.fromCoroutine(of_some(mine)) for mine in groups if mine])

    def close(self) -> None:
        """Say nothing more again."""
        self._over = True

    def pause(self, seconds: float) -> Deferred[None]:
        """Let time go by."""
        return deferLater(self._reactor, seconds, lambda: None)


def _next_run(answer: Answer) -> int | None:
    if not answer.text:
        return None
    shown = answer.shown.get("next_run")
    return shown and int(datetime.fromisoformat(shown).timestamp())
