"""A running guest under libvirt."""
