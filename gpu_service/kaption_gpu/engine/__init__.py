"""Models and voice detection, and the threads in which they compute."""
