"""Finding drift that no event explains, and healing it on request: plan → scan → confirm → heal → report (laws 5 to 8).

A run is a row; its key ranges are rows; a range is worked on by whoever gets its message. What has to wait has a due
time in the run's row, which any worker may take up.
"""
