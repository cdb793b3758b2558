"""A shop: an ordinary Django monolith.

Seven apps, one database. `catalog` knows products, `inventory` how many there are, `cart` who wants them,
`orders` and `payments` turn a cart into money, `accounts` knows the shoppers and `notifications` writes to
them. In every app `services.py` writes, `selectors.py` reads, `api.py` speaks HTTP. `config/` holds the
wiring.
"""
