"""The change stream beside its peers; see `__main__`."""
