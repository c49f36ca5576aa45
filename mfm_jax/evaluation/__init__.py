"""Measures that read only files."""
