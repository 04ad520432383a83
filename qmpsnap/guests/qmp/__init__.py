"""A guest without libvirt: every step is QMP on its own socket."""
