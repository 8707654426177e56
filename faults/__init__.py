"""The fault bench: real daemons, databases and endpoints, what is done to them, and a checker."""
