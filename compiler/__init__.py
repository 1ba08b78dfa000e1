"""Lowering a PyTorch energy to one frozen `Design`. Import the submodules; this package imports nothing itself."""
