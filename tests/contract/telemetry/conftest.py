from tests.redis_server import durable_server, durable_url

__all__ = ["durable_server", "durable_url"]
