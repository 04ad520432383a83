"""`audit`: all guests of a host at the same time."""
