"""Write an energy in PyTorch; get a chip that runs it and learns it."""

__version__ = "0.1.0"
