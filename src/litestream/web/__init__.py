"""Pages that the daemon serves over HTTP. starlette and uvicorn are imported when the first one is started."""

from litestream.web.server import MetricsServer, parse_addr, serve_metrics

__all__ = ["MetricsServer", "parse_addr", "serve_metrics"]
