"""The words of the package: one legend of array axes, and the rates that everything derives from.

Axis letters, used in every annotation and docstring:

====  ==========================================================================
B     batch
S     audio samples
F     VAE frames (one frame is ``HOP`` samples)
T     ticks (one tick is 1/12 beat); in `layers/`, any time axis
N     beats
P     MIDI pitches, 128
R     piano-roll planes: onset, active, velocity
I     instruments sounding together
C     channels, D model or latent width, H heads, K key width, V value width
L     layers (a leading axis of stacked parameters and states)
====  ==========================================================================
"""

from typing import Any

from jaxtyping import Array, Bool, Float, Int

SAMPLE_RATE = 44_100  # Hz, mono inside the model
HOP = 256  # samples per VAE frame
FRAME_RATE = SAMPLE_RATE / HOP  # 172.27 frames per second
WINDOW_FRAMES = 4_096  # frames the codec and the VAE see at once: 23.8 s
TICKS_PER_BEAT = 12  # a beat is a quarter note
N_PITCHES = 128
N_CATEGORIES = 19  # instrument categories, see music/instruments.py
ONSET, ACTIVE, VELOCITY = 0, 1, 2  # planes of a piano roll
N_PLANES = 3
LATENT = 64  # width of the music latent z, per tick
VAE_LATENT = 256  # width of the VAE latent, per frame

Wave = Float[Array, "B S"]
Frames = Float[Array, "B F D"]
FrameTicks = Float[Array, "B F"]  # position of each frame in ticks
Ticks = Float[Array, "B T D"]
Roll = Float[Array, "B T P R"]
Rolls = Float[Array, "B I T P R"]
Categories = Int[Array, "B I"]
Percussion = Bool[Array, "B I"]
Sequence = Float[Array, "B T D"]
Params = dict[str, Any]
