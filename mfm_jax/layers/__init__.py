"""Building blocks that know nothing of music: pure functions on arrays, and thin Flax modules over them."""
