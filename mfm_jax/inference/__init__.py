"""The workflows: audio, scores and prompts in, music out."""
