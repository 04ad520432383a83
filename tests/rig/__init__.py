"""What the tiers share: guests to work on, and the tests that both roads must pass."""
