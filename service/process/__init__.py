"""The process: starting, watching and ending the roles, and what they do by the clock."""
