"""The simulated chip behind stdin and stdout without a C++ compiler, and as a serial port."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from echolith.compiler.files import save
from echolith.compiler.registers import address
from echolith.host.chip import ChipDevice
from echolith.host.link import Link
from echolith.host.transports import PipeTransport, open_transport
from echolith.sim import pty, slow
from echolith.sim.bench_network import design
from echolith.sim.device import IntegerDevice
from echolith.sim.simulator import have_compiler
from echolith.sim.weights import from_values

LOOPBACK = [sys.executable, "-c", "import os\nwhile d := os.read(0, 65536): os.write(1, d)"]


@pytest.fixture(scope="module")
def small():
    return design()


def batch(small):
    generator = np.random.default_rng(2)
    limit = 1 << small.hardware.input_bits - 1
    x = generator.integers(-limit // 4, limit // 4, (3, small.dynamics.steps, small.inputs))
    return x, generator.integers(0, 2, (3, small.target_rows, small.target_width))


def learns(chip, small):
    """Compare a batch with the integer model's, bit for bit."""
    twin, words = IntegerDevice(small), from_values(small, small.values)
    twin.write(words)
    chip.write(words)
    twin_run, chip_run = twin.run("learn", *batch(small)), chip.run("learn", *batch(small))
    assert np.array_equal(chip_run.outputs, twin_run.outputs)
    assert (chip_run.flags, chip_run.response) == (twin_run.flags, twin_run.response)
    ours, theirs = chip.read_gradients(), twin.read_gradients()
    assert all(np.array_equal(ours[n], theirs[n]) for n in theirs)


@pytest.mark.slow
def test_slow_simulator_learns_like_the_model(small, tmp_path):
    save(small, tmp_path / "small.echolith")
    process = subprocess.Popen([sys.executable, "-m", "echolith.sim.slow", str(tmp_path / "small.echolith")],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    link = Link(PipeTransport(process), timeout=30)
    try:
        learns(ChipDevice(small, link), small)
        assert link.resent == link.dropped == 0
        process.stdin.close()
        assert process.wait(10) == 0  # end of input ends it
    finally:
        link.close()


def test_slow_simulator_answers(small, tmp_path):
    save(small, tmp_path / "small.echolith")
    process = subprocess.Popen([sys.executable, "-m", "echolith.sim.slow", str(tmp_path / "small.echolith")],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with Link(PipeTransport(process), timeout=30) as link:
        assert link.read(address("hardware")) == [small.hardware.hardware_id]
        time.sleep(0.5)  # it has gone to sleep by then
        link.write(address("scratch"), 0xC0DB)
        assert link.read(address("scratch")) == [0xC0DB]


@pytest.mark.parametrize("command", [slow, pty])
def test_commands_explain_themselves(command, capsys, tmp_path):
    name = command.__name__
    assert command.main([]) == 2
    assert capsys.readouterr().err == f"usage: python -m {name} FILE, not []\n"
    assert command.main([str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err == f"there is no file {tmp_path / 'none'}\n"


posix = pytest.mark.skipif(os.name != "posix", reason="no pseudo-terminals")


def loopback():
    return pty.Port(subprocess.Popen(LOOPBACK, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE))


def exchange(transport, data):
    """All of ``data`` there and back."""
    transport.write(data)
    heard = b""
    while len(heard) < len(data) and (piece := transport.read(65536, 5)):
        heard += piece
    return heard


@posix
def test_port_is_raw_and_survives_its_clients():
    every = bytes(range(256)) * 8  # control characters, XON, XOFF, line ends
    with loopback() as port:
        for _ in range(3):
            client = open_transport(port.url)
            assert exchange(client, every) == every
            client.close()


@posix
def test_port_survives_a_client_that_never_reads():
    with loopback() as port:
        rude = os.open(port.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        sent = refused = 0
        while refused < 50 and sent < 1 << 20:  # until every buffer is full; some kernels drop what nobody reads
            try:
                sent += os.write(rude, b"x" * 4096)
                refused = 0
            except BlockingIOError:
                refused += 1
                time.sleep(0.002)
        os.close(rude)
        client = open_transport(port.url)
        client.write(b"\0hello")
        heard = b""
        while not heard.endswith(b"\0hello") and (piece := client.read(65536, 5)):
            heard += piece
        assert heard.endswith(b"\0hello") and heard.count(b"x") <= sent  # stale bytes first, then ours
        client.close()


@posix
def test_closing_stops_the_process_and_removes_the_port():
    port = loopback()
    port.close()
    port.close()
    assert not os.path.exists(port.path) and port.wait() == -9


@posix
def test_port_reports_a_process_that_ends():
    code = "import sys; sys.stdin.buffer.read(1); sys.exit('out of memory')"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    with pty.Port(process) as port:
        with open(port.path, "wb", buffering=0) as client:
            client.write(b"x")
        assert port.wait() == 1
        assert port.last_words() == "out of memory"


@posix
@pytest.mark.skipif(not have_compiler(), reason="needs Verilator and a C++ compiler")
def test_simulated_chip_is_a_serial_port(small):
    with pty.serve(small) as port:
        for fresh in (True, False):
            with Link(open_transport(port.url), timeout=5) as link:
                chip = ChipDevice(small, link)
                assert chip.fresh == fresh  # the program outlives the client
                chip.clear()
                learns(chip, small)
