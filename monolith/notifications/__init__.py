"""E-mails about orders: written into a table when an order changes, sent from there, tried again."""
