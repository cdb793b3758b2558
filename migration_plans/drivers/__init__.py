"""The hands of the controller: the routes file, the change stream, the service itself.

Each driver is a small protocol with a real implementation here and a fake in migration_plans/testing.py.
"""
