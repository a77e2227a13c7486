"""Pure code without I/O: names, outcomes, decoding, and the decision about a pair."""
