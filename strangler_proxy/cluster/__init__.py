"""A backend of several instances: which there are, and which one takes a request.

    several.py   what the routes file says: frozen values          pure
    choose.py    which instance takes a request                    pure
    members.py   the instances of one backend in one worker

A backend with one `url` never comes here. One instance is an ordinary `table.Backend` with the address of its
own: connections, breaker and limits belong to it as they would to a backend.
"""
