"""What a person may ask of the service, and who may: no HTTP in it, so that the API and the page share it."""
