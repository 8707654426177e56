"""What a job is and when it runs. Pure: no Twisted, no I/O, no clock."""
