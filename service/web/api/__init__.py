"""The admin API over HTTP: endpoints, bodies, problems and limits. `service.admin` does the work and checks rights."""
