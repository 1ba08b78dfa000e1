"""One running simulator per hardware, shared by all tests of a session."""

import pytest

from echolith.host.chip import ChipDevice
from echolith.host.link import Link
from echolith.host.transports import PipeTransport
from echolith.sim.simulator import start


class Simulators:
    """Starts a simulator for each new hardware and loads programs into it."""

    def __init__(self):
        self._links = {}

    def __call__(self, design):
        key = design.hardware.hardware_id
        if key not in self._links:
            self._links[key] = Link(PipeTransport(start(design)), timeout=10.0)
        return ChipDevice(design, self._links[key], load=True)

    def close(self):
        for link in self._links.values():
            link.close()


@pytest.fixture(scope="session")
def simulate():
    """``simulate(design)`` -> a device on the simulated chip with the design's program loaded."""
    simulators = Simulators()
    yield simulators
    simulators.close()
