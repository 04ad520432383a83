"""
Random operations on volumes of the whole stack, its processes killed at random; what must hold after.

    content.py    byte for byte what a guest has written, and what it may have
    model.py      the chain and the snapshots as they have to be, after what Cinder says has become
    volume.py     one volume, its guest, and the operations on it
    held.py       what is compared, once everything is settled
    killing.py    who dies, when, and how it comes back
"""
