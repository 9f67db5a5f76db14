"""Whom an SFTP replica talks to, and how it logs in, on OpenSSH."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.contract import read
from helpers.netcontract import told
from helpers.servers.sshd import SSHD, keygen
from litestream.errors import StorageError
from litestream.storage.sftp import SFTPConfig
from litestream.storage.sftp import hosts as sftp_hosts

pytestmark = pytest.mark.xdist_group("sshd")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory without known hosts, and no agent."""
    monkeypatch.setattr(sftp_hosts, "FILES", (sftp_hosts.FILES[0], str(tmp_path / "ssh_known_hosts")))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def config(sshd: SSHD, **settings: Any) -> SFTPConfig:  # noqa: ANN401 - each setting has a type of its own
    """The server, a new directory, the right key, and no host key."""
    defaults = {
        "host": f"127.0.0.1:{sshd.port}",
        "user": sshd.user,
        "path": str(sshd.folder()),
        "key_path": str(sshd.key),
    }
    return SFTPConfig.from_settings({**defaults, **settings})


def run(*command: str) -> str:
    """What a command says."""
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


async def works(config: SFTPConfig) -> None:
    """Put and get."""
    store = config.open()
    try:
        await store.put("a", b"x")
        assert await read(store, "a") == b"x"
    finally:
        await store.close()


async def refusal(config: SFTPConfig) -> StorageError:
    """The permanent error of every operation."""
    store = config.open()
    with pytest.raises(StorageError) as first:
        await store.put("a", b"x")
    with pytest.raises(StorageError) as caught:
        await store.list("")
    assert first.value.permanent
    assert str(first.value).count("\n") == 0
    assert str(first.value) == str(caught.value)
    await store.close()
    return first.value


def known_hosts(home: Path, *lines: str) -> None:
    """What the user's file says."""
    (home / ".ssh" / "known_hosts").write_text("".join(f"{line}\n" for line in lines))


async def test_unknown_host(sshd: SSHD, home: Path) -> None:
    """A server that nobody vouched for is refused; the error has what to write where, and it works."""
    error = await refusal(config(sshd))
    assert error.code == "HostKey"
    assert "not known" in str(error)
    line = re.search(rf"\[127\.0\.0\.1\]:{sshd.port} (?:ssh|ecdsa)-\S+ \S+", str(error))
    setting = re.search(r"host-key: (\S+ \S+)$", str(error))
    assert line and setting
    assert setting[1] in sshd.host_keys.values()
    known_hosts(home, "# somebody else", "other.example ssh-ed25519 AAAA", line[0])
    await works(config(sshd))
    known_hosts(home)
    await works(config(sshd, host_key=setting[1]))


async def test_keys_of_the_system(sshd: SSHD, home: Path) -> None:
    """The known hosts of the system count too."""
    (home / "ssh_known_hosts").write_text(f"[127.0.0.1]:{sshd.port} {sshd.host_key}\n")
    await works(config(sshd))


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
async def test_any_kind_of_key(sshd: SSHD, home: Path, kind: str) -> None:
    """Whichever of the server's keys is known, that one is asked for: in known_hosts, as a pin, as a fingerprint."""
    key = sshd.host_keys[kind]
    await works(config(sshd, host_key=key))
    path = home / "key.pub"
    path.write_text(key)
    shown = run("ssh-keygen", "-lf", str(path))
    await works(config(sshd, host_key=shown.split()[1]))
    known_hosts(home, f"[127.0.0.1]:{sshd.port} {key}")
    await works(config(sshd))


async def test_hashed_known_hosts(sshd: SSHD, home: Path) -> None:
    """Names in known_hosts may be hashed, as Debian has them."""
    known_hosts(home, f"[127.0.0.1]:{sshd.port} {sshd.host_key}")
    file = home / ".ssh" / "known_hosts"
    run("ssh-keygen", "-H", "-f", str(file))
    assert "127.0.0.1" not in file.read_text()
    await works(config(sshd))


@pytest.mark.parametrize("where", ["known_hosts", "host-key", "fingerprint"])
async def test_changed_key(sshd: SSHD, home: Path, where: str) -> None:
    """Another key than the known one is refused with a warning that cannot be overlooked; nothing is sent."""
    other = keygen(home / "other")
    settings = {}
    if where == "known_hosts":
        known_hosts(home, f"[127.0.0.1]:{sshd.port} {other}")
    elif where == "host-key":
        settings["host_key"] = other
    else:
        settings["host_key"] = "SHA256:cCdv5tvBhBkGwAi91ujGxJT7HPb8dNDJw/tIY2Jf/Ck"
    error = await refusal(config(sshd, **settings))
    assert error.code == "HostKey"
    assert "THE HOST KEY HAS CHANGED" in str(error)
    assert ("known_hosts" if where == "known_hosts" else "host-key") in str(error)
    assert any(key in str(error) for key in sshd.host_keys.values())


async def test_a_pin_beats_known_hosts(sshd: SSHD, home: Path) -> None:
    """With host-key set, what known_hosts says does not matter."""
    known_hosts(home, f"[127.0.0.1]:{sshd.port} {sshd.host_key}")
    assert (await refusal(config(sshd, host_key=keygen(home / "other")))).code == "HostKey"


async def test_kind_of_key_gone(tmp_path: Path, home: Path) -> None:
    """A server that no longer has a key of the known kind is one whose key has changed."""
    server = SSHD(tmp_path / "sshd", kinds=["rsa"])
    server.start()
    try:
        path = home / "key.pub"
        path.write_text(server.host_key)
        await works(config(server, host_key=run("ssh-keygen", "-lf", str(path)).split()[1]))
        error = await refusal(config(server, host_key=keygen(home / "other")))
        assert error.code == "HostKey"
        assert "THE HOST KEY HAS CHANGED" in str(error)
    finally:
        server.stop()


async def test_revoked_key(sshd: SSHD, home: Path) -> None:
    """A key that is marked as revoked is refused, also where it is known."""
    place = f"[127.0.0.1]:{sshd.port}"
    known_hosts(home, f"{place} {sshd.host_key}", f"@revoked {place} {sshd.host_key}")
    assert (await refusal(config(sshd))).code == "HostKey"


async def test_authority(tmp_path: Path, home: Path) -> None:
    """A server whose key an authority vouches for is trusted with that authority in known_hosts, and only then."""
    authority = keygen(home / "authority")
    folder = tmp_path / "sshd"
    server = SSHD(folder, kinds=["ed25519"])
    sign = ["ssh-keygen", "-q", "-s", str(home / "authority"), "-h", "-I", "x", "-n", "127.0.0.1"]
    run(*sign, str(folder / "host_ed25519.pub"))
    with (folder / "sshd_config").open("a") as file:
        file.write(f"HostCertificate {folder}/host_ed25519-cert.pub\n")
    server.start()
    try:
        error = await refusal(config(server))
        assert (error.code, authority in str(error)) == ("HostKey", True)
        line = re.search(r"@cert-authority \S+ \S+ \S+", str(error))
        assert line
        known_hosts(home, line[0])
        await works(config(server))
        known_hosts(home, f"@cert-authority [127.0.0.1]:{server.port} {keygen(home / 'other')}")
        assert (await refusal(config(server))).code == "HostKey"
        await works(config(server, host_key=server.host_key))
    finally:
        server.stop()


async def test_unreadable_known_hosts(sshd: SSHD, home: Path) -> None:
    """A known_hosts file that cannot be understood is an error that names it."""
    known_hosts(home, f"[127.0.0.1]:{sshd.port} {sshd.host_key}", "@what")
    error = await refusal(config(sshd))
    assert (error.code, "known_hosts" in str(error)) == ("HostKey", True)


@pytest.fixture
def agent(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An SSH agent without keys."""
    path = home / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        while not path.exists():
            assert process.poll() is None
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        yield path
    finally:
        process.kill()
        process.wait()


async def test_agent(sshd: SSHD, agent: Path) -> None:
    """Without key-path and password, the keys of the agent are used."""
    settings = {"key_path": "", "host_key": sshd.host_key}
    error = await refusal(config(sshd, **settings))
    assert (error.code, "agent" in str(error)) == ("AccessDenied", True)
    run("ssh-add", "-q", str(sshd.key))
    await works(config(sshd, **settings))
    assert agent.exists()


async def test_agent_is_not_asked(sshd: SSHD, agent: Path) -> None:
    """With key-path or a password, the agent is left alone: too many keys make a server close the door."""
    run("ssh-add", "-q", str(sshd.key))
    for settings in ({"key_path": str(sshd.stranger)}, {"key_path": "", "password": "hush-hush"}):
        error = await refusal(config(sshd, host_key=sshd.host_key, **settings))
        assert (error.code, "agent" in str(error)) == ("AccessDenied", False)
        assert "hush-hush" not in told(error)
    assert agent.exists()


async def test_nothing_to_log_in_with(sshd: SSHD) -> None:
    """Without key, password and agent the error says what there could be."""
    error = await refusal(config(sshd, host_key=sshd.host_key, key_path=""))
    assert error.code == "AccessDenied"
    for way in ("key-path", "password", "SSH_AUTH_SOCK"):
        assert way in str(error)


async def test_key_files(sshd: SSHD, home: Path) -> None:
    """A key that is missing, is none, or has a passphrase is an error that says so and names the file."""
    path = home / "key"
    settings = {"host_key": sshd.host_key, "key_path": str(path)}
    assert "No such file" in str(await refusal(config(sshd, **settings)))
    path.write_text("no key")
    error = await refusal(config(sshd, **settings))
    assert (error.code, str(path) in str(error), "no private key" in str(error)) == ("AccessDenied", True, True)
    path.unlink()
    keygen(path, passphrase="hush-hush")
    error = await refusal(config(sshd, **settings))
    assert "passphrase" in str(error)
    assert "agent" in str(error)


async def test_the_users_ssh_config_has_no_say(sshd: SSHD, home: Path) -> None:
    """A replica is what its configuration says, not what ~/.ssh/config makes of it."""
    (home / ".ssh" / "config").write_text("Host *\n  Port 1\n  User nobody\n  StrictHostKeyChecking no\n")
    await works(config(sshd, host_key=sshd.host_key))
    assert (await refusal(config(sshd))).code == "HostKey"
    assert os.environ["HOME"] == str(home)
