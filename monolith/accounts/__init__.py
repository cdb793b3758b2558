"""Who shops here: users who log in by e-mail, and their addresses."""
