"""
db-scheduler, a scheduler in Java whose jobs are in a table, too: it is fetched, and run by
field/Peer.java.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.daemon import CONNECTIONS, Bench
from bench.machine import CHECKOUT, NotHere, Process, ended

FIELD = CHECKOUT / "bench" / "field"
CACHE = CHECKOUT / ".cache" / "field"

#: What the JVM is told: its options are in this place only.
JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx512m")
JAVA = 17

#: A fetch begins when no more than the first part of the threads have jobs to come, and then there
#: are as many jobs as the second: what db-scheduler's documentation has for high throughput.
LOWER, UPPER = 1.0, 4.0

#: As db-scheduler's documentation has it for MySQL, without the index for priorities.
TABLE = """
CREATE TABLE scheduled_tasks (
  task_name VARCHAR(100) NOT NULL,
  task_instance VARCHAR(100) NOT NULL,
  task_data BLOB,
  execution_time DATETIME(6) NOT NULL,
  picked BOOLEAN NOT NULL,
  picked_by VARCHAR(50),
  last_success DATETIME(6) NULL,
  last_failure DATETIME(6) NULL,
  consecutive_failures INT,
  last_heartbeat DATETIME(6) NULL,
  version BIGINT NOT NULL,
  priority SMALLINT,
  PRIMARY KEY (task_name, task_instance),
  INDEX execution_time_idx (execution_time),
  INDEX last_heartbeat_idx (last_heartbeat)
)
"""


class Peer(Process):
    """A running Peer.java."""

    def __init__(self, process: subprocess.Popen[str], errors: Path) -> None:
        super().__init__(process.pid)
        self._process = process
        self._errors = errors

    def order(self, order: str) -> None:
        """Have it carry out an order, and wait for that."""
        orders, answers = self._process.stdin, self._process.stdout
        assert orders is not None and answers is not None
        with contextlib.suppress(BrokenPipeError):
            # Not through the file's buffer, which would be written again when it is closed.
            os.write(orders.fileno(), f"{order}\n".encode())
        if answers.readline() != f"{order}\n":
            raise SystemExit(f"db-scheduler ended:\n{self._errors.read_text()[-2000:]}")


@contextlib.contextmanager
def running_peer(bench: Bench) -> Iterator[Peer]:
    """
    db-scheduler over a new and empty table.

    :raises NotHere: without Java, Maven, what Maven fetches, or a database server.
    """
    server = bench.database.server
    if server is None:
        raise NotHere("db-scheduler needs a database server: leave --engine sqlite out")
    java = find_java()
    libraries = fetched()
    bench.database.renew()
    with bench.database.connect() as connection:
        connection.cursor().execute(TABLE)
    command = [java, *JVM, "-cp", f"{libraries}/*", os.fspath(FIELD / "Peer.java")]
    command += [f"jdbc:mariadb://{server.host}:{server.port}/bench", server.user, server.password]
    command += [bench.sink.url, str(CONNECTIONS), str(LOWER), str(UPPER)]
    errors = bench.folder / "peer.log"
    with errors.open("w") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=output, text=True
        )
    assert process.stdin is not None and process.stdout is not None
    with ended(process), process.stdin, process.stdout:
        yield Peer(process, errors)


def find_java() -> str:
    """:raises NotHere: unless there is a JDK that is new enough."""
    for program in ("java", "javac", "mvn"):
        if shutil.which(program) is None:
            needs = f"db-scheduler needs a JDK of Java {JAVA} or later, and Maven"
            raise NotHere(f"there is no {program} in PATH; {needs}")
    done = subprocess.run(["java", "-version"], capture_output=True, text=True)
    found = re.search(r'version "(\d+)', done.stderr)
    if found is None or int(found[1]) < JAVA:
        said = done.stderr.partition("\n")[0]
        raise NotHere(f"db-scheduler needs Java {JAVA} or later; java -version says: {said}")
    return "java"


def fetched() -> Path:
    """
    The folder with what the peer is made of, fetched by Maven if the last fetch was by another pom.

    :raises NotHere: if Maven can't fetch it.
    """
    libraries, stamp, pom = CACHE / "lib", CACHE / "pom.xml", FIELD / "pom.xml"
    if stamp.exists() and stamp.read_text() == pom.read_text():
        return libraries
    shutil.rmtree(CACHE, ignore_errors=True)
    libraries.mkdir(parents=True)
    done = subprocess.run(
        ["mvn", "-q", "-B", "-f", os.fspath(pom), "package", f"-Dlibraries={libraries}"],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise NotHere(f"Maven could not fetch db-scheduler: {first_error(done.stdout)}")
    shutil.copy(pom, stamp)
    return libraries


def first_error(output: str) -> str:
    """What Maven says first of what went wrong, in a line, without colours and advice."""
    plain = re.sub(r"\x1b\[\d*m", "", output)
    errors = [line for line in plain.splitlines() if line.startswith("[ERROR] ")]
    if not errors:
        return "it does not say why"
    return errors[0].removeprefix("[ERROR] ").partition(" -> [Help")[0]
