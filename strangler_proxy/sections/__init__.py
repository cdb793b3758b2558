"""The sections of the routes file, one feature a module; `strangler_proxy/routes.py` puts them together."""
