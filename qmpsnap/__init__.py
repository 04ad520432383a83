"""Live disk snapshots of QEMU guests, the format of every file known, never guessed."""
