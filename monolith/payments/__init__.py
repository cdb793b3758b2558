"""Money: what was asked of the payment provider, and every answer it gave."""
