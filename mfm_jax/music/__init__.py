"""Audio files, MIDI, notes, piano rolls, tempo maps and instruments, in NumPy only."""
