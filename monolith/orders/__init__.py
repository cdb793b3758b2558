"""What was bought: orders with their prices frozen, the table of what may become of them, and the checkout."""
