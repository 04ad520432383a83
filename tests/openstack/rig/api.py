"""
A second API of Cinder's, alone in its process: what compute reports to, and what can die of itself.

Its bus (`fake:/`) ends in it, so what it casts to the volume service is lost, always.
"""

# ruff: noqa: I001
from tests.openstack.rig.cinder_begun import begun

import time

from cinder import service

begun()
service.WSGIService("osapi_volume").start()
while True:
    time.sleep(3600)
