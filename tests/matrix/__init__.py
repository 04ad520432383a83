"""
The layouts on other releases' QEMU and libvirt: `tox -e matrix`.

Each Debian release is unpacked into a folder and used through chroot; nothing is installed on the
host but debootstrap. Everything runs in mount and process namespaces of its own, so that no mount
and no process outlives the run, whatever ends it.
"""
