"""What other apps may listen to. Sent after the commit, so a receiver sees what it hears of."""

from django.dispatch import Signal

order_status_changed = Signal()
"""Arguments: `order_id`, `from_status` (empty for a new order), `to_status`."""
