"""What was to be done and what became of it, kept where a crash does not reach it."""
