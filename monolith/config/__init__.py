"""Wiring of the shop: settings, URLs, entry points and the house rules of its API."""
