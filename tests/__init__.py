"""Dalga's tests. They go by the same time zone data as the daemons that they start."""

from dalga.zonedata import use_newest

use_newest()
