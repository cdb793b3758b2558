"""How many there are: stock of each product, what is reserved for unpaid orders, and every movement."""
