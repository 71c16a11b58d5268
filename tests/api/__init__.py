"""The Python API: what it gives is what the command line gives."""
