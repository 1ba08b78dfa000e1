"""Networks and the demo: code to read, to run (`echolith demo`) and to copy."""
