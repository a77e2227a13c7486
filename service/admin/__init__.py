"""Access, audit and the admin functions that the API, the page and the command line share. Nothing here uses HTTP."""
