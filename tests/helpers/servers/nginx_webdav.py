"""nginx with its DAV modules, from Debian packages; speaks TLS itself on a second port if given a certificate."""

from __future__ import annotations

import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.servers.base import Server, free_port, listening
from helpers.servers.dav import PASSWORD, USER, DAVServer
from helpers.servers.debian import need

_MODULE = Path("/usr/lib/nginx/modules/ngx_http_dav_ext_module.so")


def start_nginx(folder: Path, port: int) -> Server:
    """The server of `folder/data` on a port."""
    folder.chmod(0o755)
    for part in ("data", "body", "logs"):
        (folder / part).mkdir(exist_ok=True)
    hashed = subprocess.run(["openssl", "passwd", "-apr1", PASSWORD], capture_output=True, text=True, check=True).stdout
    (folder / "users").write_text(f"{USER}:{hashed}")
    names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temps = "\n".join(f"{name}_temp_path {folder}/body/{name};" for name in names)
    config = f"""
        daemon off;
        worker_processes 2;
        {"user root;" if folder.owner() == "root" else ""}
        pid {folder}/nginx.pid;
        error_log {folder}/logs/error.log;
        load_module {_MODULE};
        events {{ worker_connections 200; }}
        http {{
          access_log off;
          client_max_body_size 0;
          {temps}
          server {{
            listen 127.0.0.1:{port};
            root {folder}/data;
            auth_basic dav;
            auth_basic_user_file {folder}/users;
            location / {{
              dav_methods PUT DELETE MKCOL COPY MOVE;
              dav_ext_methods PROPFIND OPTIONS;
            }}
          }}
        }}
    """
    (folder / "nginx.conf").write_text(textwrap.dedent(config))
    command = [shutil.which("nginx") or "/usr/sbin/nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    return Server([*command, "-e", str(folder / "logs" / "error.log")], folder).wait_until(listening(port))


@pytest.fixture(scope="session")
def nginx_webdav(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DAVServer]:
    """One server for all tests of the process."""
    need("nginx-light", "libnginx-mod-http-dav-ext", test=_MODULE)
    folder = tmp_path_factory.mktemp("nginx-webdav")
    said = subprocess.run(
        [shutil.which("nginx") or "/usr/sbin/nginx", "-v"], capture_output=True, text=True, check=True
    )
    with start_nginx(folder, port := free_port()):
        yield DAVServer("nginx", port, folder / "data", said.stderr.rpartition("/")[2].strip())
