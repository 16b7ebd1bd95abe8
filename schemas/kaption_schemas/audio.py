"""Defines the sample rates that audio may have. It imports nothing, so that a process that decodes one file starts quickly."""

#: Samples per second of a channel. At each rate 40 ms are a whole number of samples, so that resampling works on whole blocks.
RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
MAX_CHANNELS = 2
