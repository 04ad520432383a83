"""
The story of `qmpsnap demo`, and what it is told on.

    forgery         the header that a malicious guest writes into its raw disk
    machine         a throw-away guest: written to, read, on QEMU's own socket or under libvirt
    embed           libvirt's QEMU driver inside this process
    story           what happens to the guest

A guest is started paused and stays so: nothing in it ever runs. What a real guest would write is
written by QEMU's own `qemu-io`, through the disk's device, so it lands in the same layers.
"""
