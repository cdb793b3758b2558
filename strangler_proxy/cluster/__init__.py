"""A backend of several instances: which there are, which of them live, which one takes a request.

    several.py   what the routes file says: frozen values                              pure
    choose.py    which instance takes a request                                        pure
    health.py    what probes say about one instance: a table of states and events      pure
    members.py   the instances of one backend in one worker
    discover.py  lists of instances from a file, from DNS, from the environment        parent
    watch.py     follows the lists, probes the instances, tells the workers            parent

A backend with one `url` never comes here. One instance is an ordinary `table.Backend` with the address of its
own: connections, breaker and limits belong to it as they would to a backend. Lists and probes are the parent's
business, so that N workers do not ask the same question N times.
"""
