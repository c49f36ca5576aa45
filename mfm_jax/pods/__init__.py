"""Accelerators that are not here: what they can do, and what programs compiled for them will do there."""
