"""Create and delete: requests, plans (pure), job states (a table), and the one loop."""
