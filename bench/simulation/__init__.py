"""
What many daemons on one database would do: a simulation.

    python -m bench.simulation --check      against what was measured with one daemon and with two
    python -m bench.simulation --drain      a backlog, by 1 to 32 daemons on machines of their own
    python -m bench.simulation --steady     so many jobs a second, spread over each
    python -m bench.simulation --death      a daemon dies during a drain

The daemons are the real `Scheduler`: its agenda, scans, claims, claims ahead and
records are not modelled but run, in simulated time. Modelled is what it stands on: the interpreter
that a daemon's reactor shares with its database threads, cores that are shared by all that can run,
a table with row locks, transactions that cost CPU and wait for the flush of a log, and an endpoint.
The same seed gives the same result.

The constants are measured. docs/scaling.md says how, and what the model leaves out.
"""
