"""
Dalga without one of its mechanisms, to see that a scenario objects.

Each is a copy of the package in which some lines are others. Where the lines are not found any more
that is an error: the list is to go with the code.
"""

from __future__ import annotations

import shutil
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent

#: By name: what is changed in which file, as pairs of what stands there and what is put there.
MUTANTS: dict[str, dict[str, list[tuple[str, str]]]] = {
    "lease-check": {
        "dispatch/posts.py": [
            ("if self._reactor.seconds() + run.timeout > run.lease_ends:", "if False:")
        ],
    },
    "record-retry": {
        "dispatch/recorder.py": [
            ("self._waiting = result.unwritten + self._waiting", "result.unwritten.clear()"),
        ],
    },
    "away-pause": {
        "dispatch/outages.py": [("AWAY_PAUSE = 1.0", "AWAY_PAUSE = 0.01")],
    },
    "session-limits": {
        "store/session.py": [('"lock_wait_timeout": limits.lock,', "")],
        "store/places.py": [
            ("return self._entering + len(self._sessions) < self._most", "return True")
        ],
    },
    "key-sort": {
        "store/puts.py": [
            ("in sorted(puts, key=lambda put: put.key)", "in puts"),
        ],
    },
    "by-id": {
        "store/mysql.py": [('by_id = " FORCE INDEX (PRIMARY)"', 'by_id = ""')],
    },
    "skip-locked": {
        "store/mysql.py": [
            ('skip_locked = " FOR UPDATE SKIP LOCKED"', 'skip_locked = " FOR UPDATE"')
        ],
    },
    "last-word": {
        "store/statements.py": [
            (
                "THEN {Override.RUN_NOW} ELSE {Override.RESCHEDULED} END",
                "THEN {Override.NONE} ELSE {Override.NONE} END",
            ),
        ],
    },
    "database-clock": {
        "store/clock.py": [
            (
                "return self.time + timedelta(seconds=seconds - self.received)",
                "return datetime.now(self.time.tzinfo)",
            )
        ],
    },
    "token-compare": {
        "store/runs.py": [
            ("if lease is None or lease.token != end.run.token:", "if lease is None:"),
        ],
        "store/mysql.py": [("ON id = row_id AND token = row_token", "ON id = row_id")],
    },
    "token-check": {
        "web/request.py": [("if not self.site.tokens:", "if True:")],
    },
    "new-tokens": {
        "service.py": [("parts.site.tokens = Tokens(settings.tokens)", "pass")],
    },
    "new-secrets": {
        "service.py": [("parts.endpoints.exchange(endpoints)", "pass")],
    },
    "signed-body": {
        "signature.py": [('f"{id}.{at}.".encode("ascii") + body', 'f"{id}.{at}.".encode("ascii")')],
    },
    "signed-time": {
        "signature.py": [("at = int(self._now().timestamp())", "at = 1764579600")],
    },
    "rows-beside": {
        "store/runs.py": [
            ("if isinstance(values, Ended):", "if False:"),
        ],
    },
    "told-once": {
        "model/streak.py": [
            ("if failed >= alert_after and not before.told & Told.FAILING:", "if failed >= 3:"),
        ],
    },
    "record": {
        "store/recording.py": [
            ("        if rows:\n            self._insert(cursor, rows)\n", ""),
        ],
    },
    "one-record": {
        "store/recording.py": [
            (
                "            self._insert(cursor, rows)\n",
                "            self._insert(cursor, rows)\n"
                "            later = [row[-1]._replace(at=row[-1].at + 1) for row in rows]\n"
                "            again = [(*row[:-1], shared) for row, shared in zip(rows, later)]\n"
                "            self._insert(cursor, again)\n",
            ),
        ],
    },
    "entry": {
        "store/audit.py": [
            ("            self._add.execute(cursor, part)\n", "            pass\n"),
        ],
    },
    "same-transaction": {
        "store/runs.py": [
            (
                "            self._recording.write(cursor, to_write.endings, held, now)\n",
                "            from twisted.internet import reactor\n\n"
                "            def write(cursor, now, since):\n"
                "                self._recording.write(cursor, to_write.endings, held, now)\n\n"
                "            reactor.callFromThread(self._lane.run, write, 'record')\n",
            ),
        ],
    },
    "result": {
        "model/record.py": [
            ("return Result.OVERRIDDEN if overridden", "return Result.CANCELLED if overridden"),
        ],
    },
    "open-record": {
        "store/recording.py": [
            (
                "                self._sql.remove_open.execute(cursor, gone)\n",
                "                pass\n",
            ),
        ],
    },
    "details-before": {
        "store/details.py": [
            ("self.remove(cursor, stale, DETAILED | TAGGED)", "pass"),
        ],
    },
    "own-details": {
        "store/runs.py": [
            (
                "in self._details.read_own(cursor, wanted).items():",
                "in zip(reversed(wanted), self._details.read_own(cursor, wanted).values()):",
            ),
        ],
    },
}


def mutant(name: str, folder: Path) -> Path:
    """
    Make the copy without a mechanism.

    :return: the folder that has to be first on the path.
    :raises SystemExit: if the code has changed.
    """
    shutil.copytree(CHECKOUT / "dalga", folder / "dalga")
    for file, changes in MUTANTS[name].items():
        path = folder / "dalga" / file
        text = path.read_text()
        for old, new in changes:
            if old not in text:
                raise SystemExit(f"{name}: {file} does not have {old!r} any more")
            text = text.replace(old, new)
        path.write_text(text)
    return folder
