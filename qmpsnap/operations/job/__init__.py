"""A block job from its start to its end."""
