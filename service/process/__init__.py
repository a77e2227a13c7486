"""Starting, watching and stopping the roles of a process, and their periodic work."""
