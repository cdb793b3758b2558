"""The workshop: a whole migration on one machine, with real parts and real faults."""
