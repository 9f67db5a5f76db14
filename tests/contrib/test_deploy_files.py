"""The unit file, the image, Compose and Kubernetes say nothing that this program does not understand."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers import state
from helpers.app import App
from helpers.cli import OURS, environment, wait_until
from litestream import cli
from litestream.config import loads
from litestream.core.durations import parse_duration

ROOT = Path(__file__).resolve().parents[2]
CONTRIB = ROOT / "contrib"
UNIT = CONTRIB / "systemd" / "litestream.service"
DOCKERFILE = CONTRIB / "docker" / "Dockerfile"
COMPOSE = yaml.safe_load((CONTRIB / "compose" / "compose.yml").read_text())
MANIFESTS = list(yaml.safe_load_all((CONTRIB / "kubernetes" / "statefulset.yml").read_text()))
SHUTDOWN = 30.0
"""Seconds: the default of shutdown-sync-timeout."""


def accepted(words: list[str]) -> None:
    """Assert that our command line understands `words`, flags and number of arguments."""
    assert words[0] in cli.VERBS
    cli.load_verb(words[0]).FLAGS.parse(words[1:])


def directives() -> dict[str, str]:
    """`Key=value` of the unit file, once each."""
    found = re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert len(dict(found)) == len(found)
    return dict(found)


def manifest(kind: str) -> Any:  # noqa: ANN401 - any value of YAML
    (found,) = (one for one in MANIFESTS if one["kind"] == kind)
    return found


def pod() -> Any:  # noqa: ANN401 - any value of YAML
    return manifest("StatefulSet")["spec"]["template"]["spec"]


def containers() -> Iterator[Any]:
    yield from (*pod()["initContainers"], *pod()["containers"])


# -- systemd


def test_unit_by_systemd(tmp_path: Path) -> None:
    """systemd knows every line of the unit, and rates what it may still do as little."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not here (Debian's package systemd)")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/litestream", str(OURS.binary)))
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, timeout=60, check=False)
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if "litestream" in line]
    assert (done.returncode, complaints) == (0, [])
    rated: list[str | Path] = [analyze, "security", "--offline=true", "--threshold=25", unit]
    done = subprocess.run(rated, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_unit() -> None:
    """It waits longer than our last sync, is told of readiness, reloads by SIGHUP, and starts a command of ours."""
    unit = directives()
    assert (unit["Type"], unit["NotifyAccess"]) == ("notify", "main")
    assert unit["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert float(unit["TimeoutStopSec"]) > SHUTDOWN
    assert float(unit["WatchdogSec"]) >= 30
    program, *words = unit["ExecStart"].split()
    assert program == "/usr/local/bin/litestream"
    accepted(words)


# -- Docker


def instructions() -> list[tuple[str, str]]:
    """Instruction and rest of each line of the Dockerfile, joined where they go on."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    return [
        (word, rest)
        for word, _, rest in (line.partition(" ") for line in text.replace("\\\n", " ").splitlines() if line)
    ]


def test_dockerfile() -> None:
    """Not root at the end; what is copied is there and not ignored; entry point, command and health check are ours."""
    found = instructions()
    known = {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL"}
    assert {word for word, _ in found} == known | {"ENTRYPOINT", "CMD"}
    last = dict(found)
    assert last["USER"] == "10001:10001"
    assert (ast.literal_eval(last["ENTRYPOINT"]), ast.literal_eval(last["CMD"])) == (["litestream"], ["replicate"])
    program, *words = ast.literal_eval(last["HEALTHCHECK"].partition(" CMD ")[2])
    assert program == "litestream"
    accepted(words)
    ignored = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().split()
    sources = [name for word, rest in found if word == "COPY" and "--from" not in rest for name in rest.split()[:-1]]
    assert {"pyproject.toml", "uv.lock", "src"} <= set(sources)
    for name in sources:
        assert (ROOT / name).exists()
        assert f"!{Path(name).name}" in ignored
    extras = re.findall(r"--extra (\w+)", DOCKERFILE.read_text())
    assert extras == ["all"]


def test_in_a_read_only_container(tmp_path: Path, app: App) -> None:
    """With the image's configuration, as user 10001 without capabilities, and everything read-only but the volume and
    the tmpfs: it replicates, the health check succeeds, and after SIGTERM everything is in the replica."""
    if os.geteuid() or not all(map(shutil.which, ("unshare", "mount", "setpriv"))):
        pytest.skip("needs root, unshare, mount and setpriv for a container without Docker")
    data, run, backup = (tmp_path / name for name in ("data", "run", "backup"))
    for folder in (data, run, backup):
        folder.mkdir(mode=0o700)
    text = (CONTRIB / "docker" / "litestream.yml").read_text()
    for there, here in (("/data/", f"{data}/"), ("/run/litestream/", f"{run}/"), ("0.0.0.0:9090", "127.0.0.1:0")):
        assert there in text
        text = text.replace(there, here)
    text = text.replace("s3://$REPLICA_BUCKET/app", f"file://{backup}")
    config = tmp_path / "litestream.yml"
    config.write_text(text)
    app.create(data / "app.db")
    binds = "; ".join(f'mount --bind "{folder}" "{folder}"' for folder in (data, run, backup))
    inside = (
        f"mount --make-rprivate /; mount -t tmpfs tmpfs /dev/shm; {binds}; mount -o remount,bind,ro /; "
        "exec unshare --user --map-user=10001 --map-group=10001 setpriv --no-new-privs --bounding-set=-all "
        '--inh-caps=-all "$0" "$@"'
    )
    probe = ["unshare", "-m", "sh", "-ec", inside, "sh", "-c", f"! touch {tmp_path}/x 2>/dev/null && id -u"]
    done = subprocess.run(probe, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        pytest.skip(f"no namespaces here: {done.stderr.strip()[-200:]}")
    assert done.stdout.strip() == "10001"
    env = environment({"LITESTREAM_CONFIG": str(config), "PYTHONDONTWRITEBYTECODE": "1", "REPLICA_BUCKET": "x"})
    log = tmp_path / "log"
    with (
        log.open("wb") as file,
        subprocess.Popen(
            ["unshare", "-m", "sh", "-ec", inside, str(OURS.binary), "replicate"], env=env, stdout=file, stderr=file
        ) as process,
    ):
        try:
            wait_until(lambda: "litestream initialization complete" in log.read_text(), log.read_text)
            app.sql("CREATE TABLE t(x)")
            wait_until(lambda: OURS.run("status", env=env).code == 0, lambda: OURS.run("status", env=env).text)
            app.sql("INSERT INTO t VALUES (1)")
            process.terminate()
            assert process.wait(30) == 0, log.read_text()
        finally:
            process.kill()
    assert "ERROR" not in log.read_text()
    assert OURS.restored(f"file://{backup}", tmp_path / "out.db") == state.read(data / "app.db")


# -- Compose and Kubernetes


def test_configurations() -> None:
    """The configurations of the examples are valid, without a warning."""
    in_kubernetes = manifest("ConfigMap")["data"]["litestream.yml"]
    for text in ((CONTRIB / "docker" / "litestream.yml").read_text(), in_kubernetes):
        config = loads(text, environ={"REPLICA_BUCKET": "bucket"})
        assert config.warnings == ()
        assert [database.path for database in config.databases] == ["/data/app.db"]
        assert config.addr == "0.0.0.0:9090"
        assert config.socket.path == "/run/litestream/litestream.sock"
        assert config.shutdown_sync_timeout == SHUTDOWN


def test_compose() -> None:
    """The database is restored before anybody opens it, replication outlives the application, nobody is root."""
    services = COMPOSE["services"]
    assert services.keys() == {"restore", "litestream", "app"}
    accepted(services["restore"]["command"])
    assert {"-if-db-not-exists", "-if-replica-exists"} <= set(services["restore"]["command"])
    accepted(services["litestream"]["command"])
    for name in ("litestream", "app"):
        assert services[name]["depends_on"]["restore"] == {"condition": "service_completed_successfully"}
    assert "litestream" in services["app"]["depends_on"]  # stopped in the other order
    assert parse_duration(services["litestream"]["stop_grace_period"]) > SHUTDOWN
    for service in services.values():
        assert service["user"] == "10001:10001"
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert "data:/data" in service["volumes"]
    build = services["litestream"]["build"]
    folder = CONTRIB / "compose"
    assert (folder / build["context"]).resolve() == ROOT
    assert ROOT / build["dockerfile"] == DOCKERFILE
    assert (folder / "../docker/litestream.yml").is_file()
    assert all(port.startswith("127.0.0.1:") for port in services["litestream"]["ports"])
    ast.parse(services["app"]["command"][-1])


def test_kubernetes() -> None:
    """Structure that the API server would insist on (there is no validator of its schema in the package registries):
    versions, names that refer to something, one writer, the order of restore, sidecar and application."""
    versions = {"ConfigMap": "v1", "Service": "v1", "StatefulSet": "apps/v1"}
    assert {one["kind"]: one["apiVersion"] for one in MANIFESTS} == versions
    stateful = manifest("StatefulSet")["spec"]
    labels = stateful["template"]["metadata"]["labels"]
    assert stateful["selector"]["matchLabels"].items() <= labels.items()
    assert manifest("Service")["spec"]["selector"].items() <= labels.items()
    assert (stateful["replicas"], stateful["serviceName"]) == (1, manifest("Service")["metadata"]["name"])
    restore, sidecar = pod()["initContainers"]
    assert "restartPolicy" not in restore
    assert sidecar["restartPolicy"] == "Always"
    assert {"-if-db-not-exists", "-if-replica-exists"} <= set(restore["args"])
    for one in (restore, sidecar):
        accepted(one["args"])
    assert pod()["terminationGracePeriodSeconds"] > SHUTDOWN + 30
    assert {probe: sidecar[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe")} == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
    }
    (port,) = sidecar["ports"]
    assert {sidecar[probe]["httpGet"]["port"] for probe in ("startupProbe", "livenessProbe")} == {port["name"]}
    claims = {claim["metadata"]["name"] for claim in stateful["volumeClaimTemplates"]}
    volumes = {volume["name"] for volume in pod()["volumes"]} | claims
    for one in containers():
        assert {mount["name"] for mount in one["volumeMounts"]} <= volumes
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert pod()["securityContext"]["runAsNonRoot"]
    (volume,) = (volume for volume in pod()["volumes"] if "configMap" in volume)
    assert volume["configMap"]["name"] == manifest("ConfigMap")["metadata"]["name"]
    ast.parse(pod()["containers"][0]["command"][-1])
