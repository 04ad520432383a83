"""Status updates, stored until the volume service has accepted them."""
