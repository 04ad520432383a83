"""A guest of libvirt that is off."""
