#!/usr/bin/env python3
"""Fetch a server, or a browser, that tests can run, without root and without installing anything.

    python3 tests/servers/fetch.py mariadb .cache/mariadb  # and Galera
    python3 tests/servers/fetch.py mysql .cache/mysql
    python3 tests/servers/fetch.py nginx .cache/nginx
    python3 tests/servers/fetch.py prometheus .cache/prometheus  # and promtool
    python3 tests/servers/fetch.py chromium .cache/chromium

The server comes from the distribution's own packages: all but MySQL from the suites that this
machine uses, MySQL from Debian unstable. apt does the choosing, the download and the check of
signatures, but in a private root of its own, and the packages are only unpacked. They bring all
their libraries and the loader along, so the machine's own libraries do not matter, and
``DEST/server`` starts the lot. Chromium starts itself again for each page, past any loader in front
of it, so it goes by the machine's loader and C library. Standard library only: this runs before
there is a virtual environment.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

# Galera is a library of 0.8 MB that MariaDB loads where it is to be a cluster's node.
PACKAGES = {
    "mariadb": ("mariadb-server-core", "galera-4"),
    "mysql": ("mysql-server-core",),
    "nginx": ("nginx",),
    "prometheus": ("prometheus",),
    "chromium": ("chromium",),
}
# The scripts around MySQL are in Perl, the server is not: a fifth of the download saved. Nobody
# looks at Prometheus's pages, for which there are libraries and fonts.
NOT_NEEDED = re.compile(r"(lib)?perl|gcc-.*-base$|libjs-|fonts-")
# Without a screen, Chromium draws by itself, and has no windows of GTK's.
NOT_NEEDED_BY = {
    "chromium": re.compile(
        r"libc6$|systemd|dpkg|tar$|passwd|adduser|init-|dbus|dconf|usrmerge|procps|mount$|debconf"
        r"|(lib)?gtk|libgdk|adwaita|hicolor|shared-mime|libgl|libllvm|libicu|x11-|xdg-|libpam"
    ),
}
DATABASES = ("mariadbd", "mysqld")
SERVERS = (*(f"sbin/{name}" for name in DATABASES), "sbin/nginx", "bin/prometheus")
BROWSER = "usr/lib/chromium/chromium"
KEYRINGS = ("debian-archive-keyring.gpg", "debian-archive-keyring.pgp")

LAUNCHER = """\
#!/bin/sh
# Runs the unpacked server with its own loader, libraries and messages; moves with its folder.
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd) || exit 1
# The machine's OpenSSL settings may name modules that this OpenSSL cannot load.
OPENSSL_CONF=/dev/null
export OPENSSL_CONF
exec "$here/{loader}" --library-path "{libraries}" "$here/{server}" {options}"$@"
"""
BROWSER_LAUNCHER = """\
#!/bin/sh
# Runs the unpacked browser with its own libraries; moves with its folder.
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd) || exit 1
LD_LIBRARY_PATH="{libraries}"
export LD_LIBRARY_PATH
exec "$here/{browser}" "$@"
"""
DATABASE_OPTIONS = """\\
    --no-defaults --basedir="$here/usr" --plugin-dir="$here/usr/lib/mysql/plugin" \\
    --lc-messages-dir="$here/{messages}" --character-sets-dir="$here/{messages}/charsets" \\
    """


class FetchError(Exception):
    """What went wrong, in words for the person at the terminal."""


class Repository(NamedTuple):
    """A package repository that apt is set up to use."""

    origin: str
    label: str
    uri: str
    source_file: Path


class Apt:
    """apt with nothing of this machine in it but how to reach the network."""

    def __init__(self, root: Path) -> None:
        self.sources = root / "sources"
        self.keys = root / "keys"
        self._cwd = root / "debs"
        for folder in (self.sources, self.keys, self._cwd, root / "none"):
            folder.mkdir(parents=True)
        for name in ("state/lists/partial", "cache/archives/partial"):
            (root / name).mkdir(parents=True)
        # An empty status file: nothing is installed, so a simulation lists every library.
        (root / "status").touch()
        config = root / "apt.conf"
        config.write_text(self._config(root))
        self._environment = {**os.environ, "APT_CONFIG": str(config), "LC_ALL": "C"}

    @staticmethod
    def _config(root: Path) -> str:
        """Own folders, the machine's proxies, and none of its hooks, pins and defaults."""
        acquire = [
            line
            for line in run("apt-config", "dump").splitlines()
            if re.fullmatch(r'Acquire::[^ ]+ "[^"]*";', line)
            and not line.startswith(("Acquire::IndexTargets", "Acquire::Languages"))
        ]
        architecture = run("dpkg", "--print-architecture").strip()
        settings: dict[str, object] = {
            "Dir::State": root / "state",
            "Dir::State::status": root / "status",
            "Dir::Cache": root / "cache",
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::parts": root / "none",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": root / "none",
            "Dir::Etc::sourcelist": "/dev/null",
            "Dir::Etc::sourceparts": root / "sources",
            "APT::Architecture": architecture,
            "APT::Architectures": architecture,
            "APT::Install-Recommends": "false",
            # As root, apt would download as a user who may not read these folders.
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
        }
        return "\n".join([*acquire, *(f'{key} "{value}";' for key, value in settings.items()), ""])

    def update(self) -> str:
        """Fetch the package lists; gives apt's complaints.

        A source that cannot be reached need not matter: ``closure`` finds out.
        """
        done = subprocess.run(
            ["apt-get", "-q", "update"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        return done.stderr

    def repositories(self) -> list[Repository]:
        return repositories(self._environment)

    def closure(self, wanted: Sequence[str]) -> list[str]:
        """Packages and all they depend on that is needed, each as ``name=version``."""
        plan = run("apt-get", "-q", "-s", "install", *wanted, env=self._environment)
        found = re.findall(r"^Inst (\S+) .*?\((\S+)", plan, re.MULTILINE)
        left_out = [NOT_NEEDED, *(NOT_NEEDED_BY[name] for name in wanted if name in NOT_NEEDED_BY)]
        return [
            f"{name}={version}"
            for name, version in found
            if not any(pattern.match(name) for pattern in left_out)
        ]

    def unpack(self, packages: Sequence[str], target: Path) -> None:
        """Download packages and unpack them into a folder, running none of their scripts."""
        run("apt-get", "-q", "download", *packages, env=self._environment, cwd=self._cwd)
        target.mkdir(exist_ok=True)
        for deb in sorted(self._cwd.glob("*.deb")):
            run("dpkg", "-x", str(deb), str(target))
            deb.unlink()


def run(*command: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a command and give what it printed; its last words are the error if it fails."""
    try:
        done = subprocess.run(
            command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
    except FileNotFoundError as error:
        raise FetchError(
            f"{command[0]} was not found: fetching a server needs the apt-get and dpkg of"
            " Debian or Ubuntu."
        ) from error
    if done.returncode != 0:
        raise FetchError(f"{' '.join(command[:4])} failed:\n{last_lines(done.stderr)}")
    return done.stdout


def last_lines(text: str, count: int = 8) -> str:
    return "\n".join(f"  {line}" for line in text.strip().splitlines()[-count:])


def repositories(environment: dict[str, str] | None = None) -> list[Repository]:
    """The repositories whose package lists apt has, in the order of its sources."""
    fields = "$(CREATED_BY)|$(ORIGIN)|$(LABEL)|$(REPO_URI)|$(SOURCESENTRY)"
    listing = run("apt-get", "indextargets", "--format", fields, env=environment)
    found = []
    for line in listing.splitlines():
        created_by, origin, label, uri, entry = line.split("|")
        if created_by == "Packages":
            found.append(Repository(origin, label, uri, Path(entry.rpartition(":")[0])))
    return found


def machine_repositories(scratch: Path) -> list[Repository]:
    """The Debian or Ubuntu repositories that this machine is set up to use."""
    found = repositories()
    if not any(is_distribution(repository) for repository in found):
        # A new machine or container has sources but no lists, and only those name an origin.
        apt = Apt(scratch)
        for file in machine_source_files():
            shutil.copy(file, apt.sources)
        apt.update()
        found = [
            repository._replace(source_file=apt.sources / repository.source_file.name)
            for repository in apt.repositories()
        ]
    return [repository for repository in found if is_distribution(repository)]


def is_distribution(repository: Repository) -> bool:
    return repository.origin in ("Debian", "Ubuntu")


def machine_source_files() -> list[Path]:
    listing = run(
        "apt-config", "shell", "LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"
    )
    paths = dict(re.findall(r"^(\w+)='(.*)'$", listing, re.MULTILINE))
    files = [Path(paths["LIST"])] if "LIST" in paths else []
    parts = Path(paths.get("PARTS", "/nonexistent"))
    files += [*sorted(parts.glob("*.list")), *sorted(parts.glob("*.sources"))]
    return [file for file in files if file.is_file()]


def use_machine_sources(apt: Apt, known: Sequence[Repository]) -> None:
    """Let apt use the distribution's sources as they stand, keys and options included."""
    for file in {repository.source_file for repository in known}:
        shutil.copy(file, apt.sources)
    if not known:
        raise FetchError("apt on this machine knows no Debian or Ubuntu repository.")


def use_debian_unstable(apt: Apt, known: Sequence[Repository], scratch: Path) -> None:
    """Let apt use Debian unstable, from the mirror that the machine's Debian comes from."""
    mirror = os.environ.get("DEBIAN_MIRROR") or next(
        (r.uri for r in known if (r.origin, r.label) == ("Debian", "Debian")), None
    )
    if mirror is None:
        raise FetchError(
            "MySQL comes from Debian unstable, and apt on this machine uses no Debian mirror to"
            " take it from: set the environment variable DEBIAN_MIRROR to a Debian mirror's URL"
            " (the one that ends in /debian)."
        )
    key = debian_keyring(apt, known, scratch)
    (apt.sources / "unstable.list").write_text(f"deb [signed-by={key}] {mirror} unstable main\n")


def debian_keyring(apt: Apt, known: Sequence[Repository], scratch: Path) -> Path:
    """The keys that Debian signs with: the machine's, or (on Ubuntu) from its own package."""
    installed = Path("/usr/share/keyrings")
    for name in KEYRINGS:
        if (installed / name).exists():
            return installed / name
    distribution = Apt(scratch)
    use_machine_sources(distribution, known)
    fetch(distribution, ("debian-archive-keyring",), apt.keys)
    return next(key for name in KEYRINGS for key in apt.keys.rglob(name))


def fetch(apt: Apt, wanted: Sequence[str], target: Path) -> list[str]:
    """Unpack packages and their libraries into a folder; gives what was unpacked."""
    complaints = apt.update()
    try:
        packages = apt.closure(wanted)
    except FetchError as error:
        if complaints:
            raise FetchError(f"{error}\napt-get update said:\n{last_lines(complaints)}") from error
        raise
    apt.unpack(packages, target)
    return packages


def write_launchers(folder: Path) -> None:
    """
    Write ``server``, which runs the unpacked server in that folder with its own libraries; and
    beside Prometheus ``promtool``.
    """
    if (folder / BROWSER).exists():
        found = sorted({path.parent for path in folder.glob("**/*.so*")})
        places = ":".join(f"$here/{path.relative_to(folder)}" for path in found)
        write_launcher(folder / "server", BROWSER_LAUNCHER, libraries=places, browser=BROWSER)
        return

    def find(what: str, *patterns: str) -> Path:
        for pattern in patterns:
            for path in sorted(folder.glob(pattern)):
                return path.relative_to(folder)
        raise FetchError(f"The packages hold no {what} where it was looked for.")

    loader = find("loader", "usr/lib/*/ld-linux*.so.*", "lib/*/ld-linux*.so.*")
    server = find("server", *(f"usr/{name}" for name in SERVERS))
    options = ""
    if server.name in DATABASES:
        messages = find("messages", "usr/share/*/english/errmsg.sys").parent.parent
        options = DATABASE_OPTIONS.format(messages=messages)
    libraries = ":".join(f"$here/{prefix}lib/{loader.parent.name}" for prefix in ("usr/", ""))
    programs = {"server": server}
    if server.name == "prometheus":
        programs["promtool"] = server.with_name("promtool")
    for name, program in programs.items():
        values = {"loader": loader, "server": program, "options": options, "libraries": libraries}
        write_launcher(folder / name, LAUNCHER, **values)


def write_launcher(path: Path, text: str, **values: object) -> None:
    path.write_text(text.format(**values))
    path.chmod(0o755)


def version(engine: str, folder: Path) -> str | None:
    """What the server in that folder calls itself, or None if it is not all there, or won't run."""
    try:
        unpacked = {line.partition("=")[0] for line in (folder / "packages").read_text().split()}
        return ask_version(folder) if unpacked.issuperset(PACKAGES[engine]) else None
    except (FetchError, OSError):
        return None


def ask_version(folder: Path) -> str:
    """What the server in that folder calls itself; nginx says it to the standard error."""
    if (folder / "promtool").exists():
        return run(str(folder / "server"), "--version").split()[2]
    if (folder / BROWSER).exists():
        return run(str(folder / "server"), "--version").split()[1]
    said = run("sh", "-c", 'exec "$0" -V 2>&1', str(folder / "server"))
    return said.strip().splitlines()[0].rpartition("/")[2]


def make_sure(engine: str, destination: Path) -> None:
    """Have a server that runs in that folder, complete or not at all."""
    destination = destination.absolute()
    destination.parent.mkdir(parents=True, exist_ok=True)
    with open(destination.parent / f".{destination.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = version(engine, destination)
        if found:
            print(f"{engine} is there: {found}")
            return
        print(f"fetching {engine} into {destination} ...", flush=True)
        leftover = f".{destination.name}.fetch-"
        for stale in destination.parent.glob(f"{leftover}*"):
            shutil.rmtree(stale)
        # Beside the destination, so that the rename stays within one file system.
        with tempfile.TemporaryDirectory(prefix=leftover, dir=destination.parent) as scratch:
            print(f"{engine} is ready: {build(engine, destination, Path(scratch))}")


def build(engine: str, destination: Path, scratch: Path) -> str:
    """Fetch and unpack a server in a scratch folder, try it, move it to its place."""
    known = machine_repositories(scratch / "machine")
    apt = Apt(scratch / "apt")
    if engine == "mysql":
        use_debian_unstable(apt, known, scratch / "keyring")
    else:
        use_machine_sources(apt, known)
    unpacked = scratch / "unpacked"
    packages = fetch(apt, PACKAGES[engine], unpacked)
    (unpacked / "packages").write_text("\n".join([*sorted(packages), ""]))
    write_launchers(unpacked)
    # Not version(): if it does not run here, the loader's own words say why.
    found = ask_version(unpacked)
    if destination.exists():
        destination.rename(scratch / "broken")
    unpacked.rename(destination)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Fetch a server for tests to run.")
    parser.add_argument("engine", choices=sorted(PACKAGES))
    parser.add_argument("destination", type=Path, metavar="DEST")
    arguments = parser.parse_args()
    try:
        make_sure(arguments.engine, arguments.destination)
    except FetchError as error:
        print(f"fetch.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
