"""The proxy beside its peers; `__main__.py` is the tour."""
