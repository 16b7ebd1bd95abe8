"""What a backend is asked and answers, and the guards against loops of a model."""
