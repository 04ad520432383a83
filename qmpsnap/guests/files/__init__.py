"""Files on this host: headers, overlays, and who uses them."""
