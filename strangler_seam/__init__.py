"""The seam: a removable Django app that tells a proxy in front of a Django site what only Django knows.

Add `strangler_seam` to INSTALLED_APPS and `strangler_seam.middleware.SeamMiddleware` to the beginning of
MIDDLEWARE. Take both lines out and nothing is left: no tables, no settings.

`headers.py` decides from facts, `middleware.py` collects them, `logs.py` puts the request's id into log
records.
"""
