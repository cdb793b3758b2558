"""Views of the storefront, one file a part of the shop."""
