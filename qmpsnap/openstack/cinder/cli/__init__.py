"""`qmpsnap cinder`: for whoever runs Cinder. Imports Cinder only when a command does its work."""
