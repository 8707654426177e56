"""Jobs, their parameters and their run times. Pure: no Twisted, no I/O, no clock."""
