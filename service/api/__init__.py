"""The ASGI app: gates, bodies, routes, problems."""
