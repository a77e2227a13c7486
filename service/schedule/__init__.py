"""The periodic reconcile: one run a time slot, whoever asks (law 7)."""
