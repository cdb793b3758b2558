"""Where transactions go."""
