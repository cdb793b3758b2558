"""Plan and controller: what moves, in which stages, on what evidence, and the way back.

A *plan* (plan.py) is a YAML file. Its *stages* are walked by a state machine (stages.py) whose state lives
in an append-only *ledger* in PostgreSQL (ledger.py). The *controller* (controller.py) reads signals
(signals.py), asks the pure cores - gates.py: enough good evidence? rollback.py: too many errors?
next_event.py: what happens now? reconcile.py: which actions bring the world to what the ledger says? - and
lets actions.py and drivers/ do it. The CLI (cli/) shares all of it.
"""
