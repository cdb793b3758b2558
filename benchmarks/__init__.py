"""Every claim of speed, measured beside a named peer in the same run."""
