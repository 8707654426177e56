"""
The names of the targets of alerts beside ``[alerts]``, and where the configuration has them::

    [alerts ops]                        in an ini file; [alerts.ops] will do as well
    [alerts.ops]                        in TOML; in YAML "ops:" below "alerts:"
    DALGA_ALERTS_OPS_URL                a variable

A variable's name has an underscore for a hyphen, as with the names of endpoints
(`dalga.config.endpoints`).
"""

from __future__ import annotations

import re

from dalga.config.endpoints import same_variables
from dalga.config.sections import KEYS
from dalga.model.address import (
    DEFAULT_TARGET,
    MAX_ENDPOINT_NAME,
    NO_TARGET,
    is_endpoint_name,
)

#: The section of the default target, and the first word of the headings of all others.
ALERTS = "alerts"


def target_section(target: str) -> str:
    """The name of a target's section, in `Given`."""
    return ALERTS if target == DEFAULT_TARGET else f"{ALERTS} {target}"


def why_not_target(name: str) -> str | None:
    """Why a text can't name a target, as the end of a sentence; None where it can."""
    if name.lower() == DEFAULT_TARGET:
        return f"the default target has its keys in [{ALERTS}], choose another name"
    if name.lower() == NO_TARGET:
        return f"{NO_TARGET} says that no alerts are sent, choose another name"
    if not is_endpoint_name(name):
        return (
            f"a target's name takes 1 to {MAX_ENDPOINT_NAME} lower case letters and digits, "
            "with a single - or _ between them, such as ops"
        )
    if same_variables(name) in {key.lower() for key in KEYS[ALERTS]}:
        return f"{same_variables(name)} is a key of [{ALERTS}], choose another name"
    return None


def target_heading(written: str) -> str | None:
    """
    The name of a target in the heading of a section, as it is written.

    :return: None for ``[alerts]``, and for the heading of no target.
    """
    first, *words = re.split(r"\s*\.\s*|\s+", written.strip())
    return words[0] if first.lower() == ALERTS and len(words) == 1 else None
