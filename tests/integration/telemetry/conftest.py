from tests.redis_server import durable_server, durable_url, redis_server, redis_url

__all__ = ["durable_server", "durable_url", "redis_server", "redis_url"]
