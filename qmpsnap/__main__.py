"""`python -m qmpsnap`."""

from qmpsnap.cli.main import main

main()
