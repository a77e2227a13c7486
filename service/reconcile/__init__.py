"""Find drift that no event explains, and heal it on request: plan → scan → confirm → heal → report (laws 5 to 8).

A run is a row, and each of its key ranges is a row. The worker that receives a range's message works on it. A step that
has to wait has a due time in the run's row, and any process may take it then.
"""
