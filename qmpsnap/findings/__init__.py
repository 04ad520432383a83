"""What is wrong with the disks of one guest, or of several. Pure: no I/O in here."""
