"""Plug-ins for Nova and Cinder; nothing imports them."""
