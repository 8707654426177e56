"""
The gauges of dispatch: what it has in hand, for whoever looks. `dalga.metrics` says what each is.
"""

from __future__ import annotations

from dalga.dispatch.outlook import Outlook
from dalga.dispatch.recorder import Recorder
from dalga.dispatch.slots import Slots
from dalga.metrics import Metrics
from dalga.store.clock import DatabaseClock


def show(
    metrics: Metrics, clock: DatabaseClock, slots: Slots, recorder: Recorder, outlook: Outlook
) -> None:
    """Have the metrics show what these parts know. Nobody asks the database for it."""
    metrics.gauge("dalga_slots", lambda: slots.count)
    metrics.gauge("dalga_slots_in_use", lambda: slots.running)
    metrics.gauge("dalga_agenda_entries", lambda: len(outlook.agenda))
    metrics.gauge("dalga_unrecorded_outcomes", lambda: recorder.pending)
    metrics.gauge("dalga_lag_seconds", lambda: outlook.lag(clock.now()))
    metrics.gauge("dalga_due_jobs", lambda: outlook.due)
    metrics.gauge("dalga_clock_offset_seconds", lambda: clock.offset)
    metrics.gauge("dalga_instances", lambda: 1 + outlook.lead.others)
