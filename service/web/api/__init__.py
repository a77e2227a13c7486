"""The admin API over HTTP: routers, bodies, problems, limits. What it does and who may is `service.admin`."""
