"""The engine: models, voice detection, and the threads in which they compute."""
