"""``python -m echolith``: the command line, where its script is not on the path."""

from echolith.host.cli import main

main()
