"""The periodic reconcile: one run a time slot, whoever asks (R27, law 7)."""
