"""Amaranth components of the machine. Import the submodules."""
