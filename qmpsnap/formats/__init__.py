"""Each layer's format, who says so, and the verdict. Pure: no I/O in here."""
