"""iCEBreaker with an iCE40 UP5K: 1BitSquared's board, USB serial port on channel B of its FTDI."""

from amaranth_boards.icebreaker import ICEBreakerPlatform

from echolith.rtl.spram import Spram

__all__ = ["Icebreaker"]


class Icebreaker(ICEBreakerPlatform):
    """12 MHz oscillator; resources ``uart`` 0 (FTDI) and ``led`` 0 (red)."""

    weight_bank = Spram  # 1 Mbit beside the block memories, which the gradients need
    overrides = {"synth_opts": "-dsp -device u -dffe_min_ce_use 4", "nextpnr_opts": "--placer static"}
