"""Boards: pins, clocks and tool flows. The only place that knows a pin."""
