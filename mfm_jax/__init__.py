"""A music foundation model in JAX and Flax: text, MIDI and audio through one latent space."""
