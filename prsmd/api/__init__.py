"""The REST API on aiohttp: routes, middleware, request schemas. Use cases live in service/."""
