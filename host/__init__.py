"""Driving a chip: link, device, session, command line. Imports neither torch nor amaranth."""
