"""``twistd dalga``."""

from twisted.application.service import ServiceMaker

dalga = ServiceMaker("Dalga", "dalga.cli", "Cron as a service: a job scheduler.", "dalga")
