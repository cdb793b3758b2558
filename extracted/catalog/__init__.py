"""The catalogue: products, categories, search and reviews, carved out of the shop.

It answers the shop's catalogue API so that clients cannot tell who answered, from tables of its own that the
change stream fills. While the shop owns the rows this service only reads.

    app.py (wiring) ─► api.py (HTTP) ─► filters.py, rules.py, representation.py (pure)
                                     └► store.py (all SQL) ─► migrations/
"""
