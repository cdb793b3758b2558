"""What every service and tool here needs and that knows no domain.

Nothing in this package imports from another package of this repository.
"""
