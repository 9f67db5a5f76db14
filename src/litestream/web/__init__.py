"""Pages that the daemon serves over HTTP. starlette and uvicorn are imported when the first one is started."""

from litestream.web.server import WebServer, parse_addr, serve_metrics

__all__ = ["WebServer", "parse_addr", "serve_metrics"]
