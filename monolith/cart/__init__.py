"""What a shopper wants to buy: a cart for each user, and for each anonymous session that put something in."""
