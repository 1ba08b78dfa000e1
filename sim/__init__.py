"""The integer model (numpy only), simulators of the generated Verilog, and cocotb benches."""
