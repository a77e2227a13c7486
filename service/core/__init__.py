"""What is pure: names, outcomes, decoding, the decision about a pair. Nothing here does I/O."""
