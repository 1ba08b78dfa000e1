"""Serial ports (over a pseudo-terminal), subprocesses, and their URLs."""

import errno
import os
import subprocess
import sys

import pytest
import serial

from echolith.compiler.errors import LinkError
from echolith.host.transports import PipeTransport, SerialTransport, open_transport


def python(code, **pipes):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | pipes
    return subprocess.Popen([sys.executable, "-c", code], **pipes)


def test_pipe_carries_bytes():
    echo = "import os\nwhile data := os.read(0, 100): os.write(1, data)"
    transport = PipeTransport(python(echo))
    try:
        assert transport.read(10, 0.01) == b""
        transport.write(b"hello")
        assert transport.read(2, 10) == b"he"
        assert transport.read(10, 10) == b"llo"
    finally:
        transport.close()
        transport.close()


def test_pipe_reports_the_death_of_the_process():
    transport = PipeTransport(python("import sys; print('out of memory', file=sys.stderr); sys.exit(3)"))
    text = r"^the simulator ended with exit code 3; its last words: 'out of memory'$"
    with pytest.raises(LinkError, match=text):
        transport.read(1, 10)
    with pytest.raises(LinkError, match=text):
        transport.write(b"x")
    with pytest.raises(ValueError, match=r"^process must have stdin=PIPE and stdout=PIPE, not \["):
        PipeTransport(python("", stdout=subprocess.DEVNULL))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_serial_port():
    far, near = os.openpty()
    path = os.ttyname(near)
    transport = open_transport(f"serial://{path}?baud=115200")
    assert str(transport) == f"{path} at 115200 baud"
    with pytest.raises(LinkError, match=rf"^cannot open the serial port: another program .*\({path} at 9 baud\)$"):
        SerialTransport(path, 9)
    transport.write(b"\xc0\x00\x0a")
    assert os.read(far, 10) == b"\xc0\x00\x0a"
    assert transport.read(10, 0.01) == b""
    os.write(far, b"\x0d\x11\xdb")
    assert transport.read(1, 5) + transport.read(10, 5) == b"\x0d\x11\xdb"
    os.close(near)
    os.close(far)
    with pytest.raises(LinkError, match=rf"^the serial port is gone; .*\({path}\)$"):
        transport.read(10, 1)
    transport.close()


@pytest.mark.parametrize(
    "number, text",
    [(errno.EACCES, "permission denied; add your"), (errno.ENOENT, "no such port"), (errno.EBUSY, "another program")],
)
def test_serial_port_cannot_be_opened(number, text, monkeypatch):
    def refuse(*args, **options):
        raise serial.SerialException(number, "could not open port")

    monkeypatch.setattr(serial, "Serial", refuse)
    with pytest.raises(LinkError, match=rf"^cannot open the serial port: {text}.*\(/dev/ttyUSB0 at 1000000 baud\)$"):
        open_transport("serial:///dev/ttyUSB0")


@pytest.mark.parametrize(
    "url, text",
    [
        ("pcie:0000:01:00.0", "^pcie links are not built yet; .*'pcie:0000:01:00.0'$"),
        ("usb:1", r"^a link must be serial://<port>\?baud=<rate>, not 'usb:1'$"),
        ("serial:", "^a link must be .*, not 'serial:'$"),
        ("serial:///dev/x?baud=fast", "^a serial link takes one option, .* not 'baud=fast'$"),
        ("serial:///dev/x?bits=7", "^a serial link takes one option, .* not 'bits=7'$"),
        ("serial:///dev/none", r"^cannot open the serial port: no such port; .*\(/dev/none at 1000000 baud\)$"),
    ],
)
def test_bad_links(url, text):
    with pytest.raises(LinkError, match=text):
        open_transport(url)
