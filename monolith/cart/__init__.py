"""What a shopper wants to buy: one cart for each user, and one for each anonymous session that put something in."""
