"""The HTTP interface: Klein routes over `dalga.operations`."""
