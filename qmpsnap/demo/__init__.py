"""
Throw-away guests without an operating system, for `qmpsnap demo` and for tests.

    images          image files, and what they read as while no guest has them
    disks           how a disk is described to QEMU
    guest           what every guest can do: be written to, be read, be asked
    export          how a running guest's disk is read
    writer          a guest that keeps on writing, and knows what it wrote
    qemu_guest      a QEMU of our own
    embed           libvirt's QEMU driver inside this process
    libvirt_guest   a QEMU of that driver

A guest is started paused and stays so: nothing in it ever runs. What a real guest would write is
written by QEMU's own `qemu-io`, through the disk's device, so it lands in the same layers.
"""
