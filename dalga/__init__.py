"""Dalga: cron as a service, on Twisted and MySQL."""

__version__ = "0.1.0"
