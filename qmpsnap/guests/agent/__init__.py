"""The guest agent: freeze and thaw."""
