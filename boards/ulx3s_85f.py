"""ULX3S with an ECP5-85F: Radiona's board, USB serial port on its FTDI."""

from amaranth_boards.ulx3s import ULX3S_85F_Platform

from echolith.boards.floorplan import Floor
from echolith.rtl.ccu2c import Ccu2c
from echolith.rtl.dp16kd import Dp16kd
from echolith.rtl.mult18x18d import Mult18x18d

__all__ = ["Ulx3s85F"]


class Ulx3s85F(ULX3S_85F_Platform):
    """25 MHz oscillator; resources ``uart`` 0 (FTDI) and ``led`` 0."""

    # Blocks of four multipliers, and of four memories twelve rows further. Below the array is room for all else.
    floor = Floor(columns=(4, 13, 22, 31, 40, 49, 58, 69, 78, 87, 96, 105, 114), rows=(34, 10, 58),
                  multipliers=tuple((i, 0, f"MULT18_{i}") for i in (0, 1, 4, 5)),
                  memories=tuple((2 * i, 12, f"EBR{i}") for i in range(4)))
    registered_bank, multiplier, accumulator = Dp16kd, Mult18x18d, Ccu2c
    # Logic cells that are joined to wide ones are no fewer, and have to stand beside each other.
    overrides = {"synth_opts": "-nowidelut", "nextpnr_opts": "--placer static"}
