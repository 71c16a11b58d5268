"""Readers of what users have: one module a format, `base` the contract, `registry` which file is what."""
