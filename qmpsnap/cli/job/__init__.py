"""`job …`: the block jobs of a guest, and what to do with them."""
