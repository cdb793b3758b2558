"""What was bought: orders with frozen prices, the table of what may become of them, and the checkout."""
