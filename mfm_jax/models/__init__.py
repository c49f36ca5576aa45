"""The VAE, the codec, the generator and the text encoder, each with its config class."""
