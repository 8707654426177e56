"""
The mistakes of a configuration, which are gathered so that all of them are said at once.

Some rules are about several keys. Such a rule would say nonsense where one of its keys has a
mistake: an endpoint whose ``baseurl`` is misspelt would lack a baseurl as well. So what has a
mistake is *unclear*, and a rule is asked only where all is clear that it is about.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from dalga.errors import ConfigError

#: Stands for all sections: a mistake that may belong to any of them.
ANY = ""


class Mistakes:
    """The mistakes that were found so far."""

    def __init__(self) -> None:
        self._found: list[str] = []
        self._unclear: set[str] = set()

    @contextmanager
    def of(self, section: str) -> Iterator[None]:
        """
        Gather the mistake that is raised in here, and go on.

        :param section: the section that the mistake makes unclear; `ANY` for all.
        """
        try:
            yield
        except ConfigError as error:
            self.take(section, error)

    def take(self, section: str, error: ConfigError) -> None:
        """Take a mistake."""
        self._found += error.mistakes
        self._unclear.add(section)

    def ask(self, section: str, errors: Iterable[ConfigError]) -> None:
        """Take the mistakes that a rule finds, if the section is clear."""
        if self.clear(section):
            for error in errors:
                self.take(section, error)

    def clear(self, *sections: str) -> bool:
        """Whether no mistake is known that makes one of the sections unclear."""
        return not self._unclear & {ANY, *sections}

    def found(self) -> Sequence[str]:
        """A sentence on each mistake, in the order in which they were found."""
        return [*dict.fromkeys(self._found)]
