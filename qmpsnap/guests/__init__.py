"""Who carries a step out: QEMU itself over QMP, or libvirt. And the files beside them."""
