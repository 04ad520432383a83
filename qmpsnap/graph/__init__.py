"""The block graph of a guest at one moment, as frozen values. Pure: no I/O in here."""
