"""
Real Cinder and Nova's own libvirt driver on a real libvirtd, on one machine, in seconds.

    rig.py          one rig from outside: up, down, restart, and its HTTP interfaces
    guest.py        a guest without a system that has a volume attached, as Nova attaches it
    pairings.py     which of the two sides is ours
    layout.py       the folder of a rig: configuration, shims, ports
    settings.py     changes of an oslo.config file
    services.py     start and restart the services; inside
    inside.py       process 1 of a rig's namespaces, and who starts and stops services in there
    warm.py         a process that has imported what a service needs, and forks for each start
    nova_imported.py, cinder_imported.py  what that is
    ready_made.py   what is made once for all rigs
    cinder_all.py   Cinder's API, scheduler and volume service, in one process
    bus.py          a message bus, for when each of them is a process of its own
    databases.py    Cinder's database, whichever it is
    api.py          a second API, in a process of its own
    cinder_begun.py what both begin with
    backups.py      backups of volumes: made, read, restored
    images.py       as much of Glance as an upload needs
    compute.py      nova-compute's part in volume snapshots
    unprivileged.py  what it takes to run compute as the user `nova`, with sudo and rootwrap
    cut.py          a connection to libvirtd that is cut in the middle of a call
    records.py      what a boot leaves in Nova's database

Nothing of either project is changed: plug-ins are switched on by configuration. Everything of a
rig runs in mount and process namespaces of its own and ends with them, also when it is killed;
several may run at once. The tests stay outside: they reach libvirtd by its socket and the share by
its folder.

Left out are keystone (noauth: everyone is admin), the message bus (`fake:/` within each process),
nova-api (the body of a create is checked with its schema), conductor, placement, and an NFS server
(os-brick takes what is mounted already).
"""
