"""`qmpsnap ledger …`: what the volume side knows of its files."""
