"""A simulated chip as a serial port: python -m echolith.sim.pty FILE

Prints a URL like serial:///dev/pts/5 and serves until interrupted. Clients may come and go; the chip keeps its state.
"""

import os
import selectors
import subprocess
import sys
import threading

from echolith.compiler.design import Design
from echolith.compiler.errors import EcholithError, LinkError
from echolith.compiler.files import load
from echolith.sim.simulator import start

__all__ = ["Port", "main", "serve"]

_MOST = 65536  # bytes held in either direction; beyond, the sender has to wait


class Port:
    """A pseudo-terminal in front of a process that speaks bytes on stdin and stdout. Use as a context manager.

    Attributes
    ----------
    path : str
        Of the terminal, to be opened like a serial port; any baud rate will do.
    url : str
        The same for a session.

    Raises
    ------
    LinkError
        On systems without pseudo-terminals.
    """

    def __init__(self, process: "subprocess.Popen[bytes]"):
        try:
            import pty
            import tty
        except ImportError as error:
            process.kill()
            raise LinkError("there are no pseudo-terminals on this system; open the session as sim: instead") from error
        self._process = process
        # Our own hold on the client's end keeps the port alive, and its settings raw, between two clients.
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        self.url = f"serial://{self.path}"
        self._woken, self._wake = os.pipe()
        for descriptor in (self._master, process.stdin.fileno(), process.stdout.fileno()):
            os.set_blocking(descriptor, False)
        self._thread = threading.Thread(target=self._pump, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Port":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self) -> int | None:
        """Until the simulator ends by itself or `close` is called; its exit code."""
        self._thread.join()
        return self._process.poll() if self._master < 0 else self._process.wait()

    def last_words(self) -> str:
        """What the simulator printed on stderr, once it has ended."""
        stderr = self._process.stderr
        return stderr.read().decode(errors="replace").strip() if stderr and self._process.poll() is not None else ""

    def close(self) -> None:
        """Stop the simulator and remove the port; harmless when repeated."""
        if self._master < 0:
            return
        os.write(self._wake, b"x")
        self._thread.join()
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        for descriptor in (self._master, self._slave, self._woken, self._wake):
            os.close(descriptor)
        self._master = -1

    def _pump(self) -> None:
        """Bytes both ways until woken or the simulator ends. Nothing blocks: a client may vanish at any time."""
        to_chip, to_client = bytearray(), bytearray()
        stdin, stdout, master = self._process.stdin.fileno(), self._process.stdout.fileno(), self._master
        while True:
            with selectors.DefaultSelector() as selector:
                selector.register(self._woken, selectors.EVENT_READ)
                reads = selectors.EVENT_READ if len(to_chip) < _MOST else 0
                if events := reads | (selectors.EVENT_WRITE if to_client else 0):
                    selector.register(master, events)
                selector.register(stdout, selectors.EVENT_READ)
                if to_chip:
                    selector.register(stdin, selectors.EVENT_WRITE)
                ready = {key.fd: mask for key, mask in selector.select()}
            if self._woken in ready:
                return
            try:
                if ready.get(master, 0) & selectors.EVENT_READ:
                    to_chip += os.read(master, _MOST)
                if ready.get(master, 0) & selectors.EVENT_WRITE:
                    del to_client[:os.write(master, to_client)]
                if stdin in ready:
                    del to_chip[:os.write(stdin, to_chip)]
            except BlockingIOError:  # the other end filled up in between
                pass
            except BrokenPipeError:
                return
            if stdout in ready:
                data = os.read(stdout, _MOST)
                if not data:
                    return
                to_client += data
                del to_client[:-_MOST]  # nobody reads: lost, as on a wire; holding the chip back could block us all


def serve(design: Design) -> Port:
    """A port with a simulator of ``design`` behind it, freshly reset."""
    return Port(start(design))


def main(arguments: list[str]) -> int:
    """Command line; the exit code."""
    if len(arguments) != 1:
        print(f"usage: python -m echolith.sim.pty FILE, not {arguments!r}", file=sys.stderr)
        return 2
    try:
        with serve(load(arguments[0])) as port:
            print(port.url, flush=True)
            print(f"the simulator ended with exit code {port.wait()}: {port.last_words()!r}", file=sys.stderr)
    except EcholithError as error:
        print(error, file=sys.stderr)
    except KeyboardInterrupt:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
