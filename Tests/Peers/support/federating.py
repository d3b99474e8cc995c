"""Servers that speak with one another over TLS on loopback: Roost and Synapse, named localhost:PORT unless a test names them."""

import json
import pathlib
import subprocess

from roost_server import Roost
from server_process import ServerProcess, free_port


class FederatingRoost(Roost):
    """A Roost with a listener for other servers; `listeners` are further ones."""

    def __init__(self, authority, label, name=None, port=None, certificate_for="DNS:localhost,IP:127.0.0.1",
                 listeners=(), **settings):
        port = port or free_port()
        self.name = name or f"localhost:{port}"
        certificate, key = authority.issue(label, certificate_for)
        super().__init__(environment={})
        listeners = [
            {"address": "127.0.0.1", "port": self.port},
            {"address": "127.0.0.1", "port": port, "serve": ["federation"],
             "tls": {"certificate": str(certificate), "key": str(key)}},
            *listeners,
        ]
        self.environment = {
            "ROOST_SERVER_NAME": self.name, "ROOST_LISTENERS": json.dumps(listeners),
            "ROOST_FEDERATION_CA_CERTIFICATES": json.dumps([str(authority.certificate)]),
            "ROOST_FEDERATION_IP_DENYLIST": "[]", "ROOST_REGISTRATION_MODE": "open",
            "ROOST_RATE_LIMITS_ENABLED": "false", "ROOST_LOG_LEVEL": "debug",
            **settings,
        }

    def arguments(self):
        # The listeners are in the environment.
        return []


class Synapse(ServerProcess):
    """A Synapse on SQLite, from .venv/synapse."""

    ending = 30
    python = str(pathlib.Path(__file__).resolve().parents[3] / ".venv" / "synapse" / "bin" / "python")

    def __init__(self, authority, label="synapse"):
        super().__init__("synapse-test-")
        self.port, federation = free_port(), free_port()
        self.name = f"localhost:{federation}"
        self.url = f"http://127.0.0.1:{self.port}"
        certificate, key = authority.issue(label)
        unlimited = {"per_second": 100000, "burst_count": 100000}
        config = {
            "server_name": self.name, "pid_file": str(self.directory / "pid"), "report_stats": False,
            "listeners": [
                {"port": self.port, "bind_addresses": ["127.0.0.1"], "type": "http",
                 "resources": [{"names": ["client"]}]},
                {"port": federation, "bind_addresses": ["127.0.0.1"], "type": "http", "tls": True,
                 "resources": [{"names": ["federation", "client"]}]},
            ],
            "tls_certificate_path": str(certificate), "tls_private_key_path": str(key),
            "federation_custom_ca_list": [str(authority.certificate)],
            "database": {"name": "sqlite3", "args": {"database": str(self.directory / "homeserver.db")}},
            "log_config": str(self.directory / "log.yaml"), "media_store_path": str(self.directory / "media"),
            "signing_key_path": str(self.directory / "signing.key"), "trusted_key_servers": [],
            "suppress_key_server_warning": True, "enable_registration": True,
            "enable_registration_without_verification": True, "registration_shared_secret": "secret",
            "macaroon_secret_key": "secret", "bcrypt_rounds": 4, "ip_range_blacklist": [],
            "federation_ip_range_blacklist": [], "presence": {"enabled": True},
            "allow_public_rooms_over_federation": True, "room_list_publication_rules": [{"action": "allow"}], "allow_device_name_lookup_over_federation": True,
            "federation": {"destination_min_retry_interval": "1s", "destination_max_retry_interval": "2s",
                           "destination_retry_multiplier": 1},
            "rc_message": unlimited, "rc_registration": unlimited, "rc_joins": {"local": unlimited, "remote": unlimited},
            "rc_login": {"address": unlimited, "account": unlimited, "failed_attempts": unlimited},
            "rc_invites": {"per_room": unlimited, "per_user": unlimited, "per_issuer": unlimited},
            "rc_joins_per_room": unlimited, "rc_room_creation": unlimited, "rc_presence": {"per_user": unlimited},
            "rc_third_party_invite": unlimited, "rc_3pid_validation": unlimited, "rc_invites_per_issuer": unlimited,
            "rc_federation": {"window_size": 1000, "sleep_limit": 100000, "sleep_delay": 1, "reject_limit": 100000,
                              "concurrent": 1000},
        }
        (self.directory / "homeserver.yaml").write_text(json.dumps(config))
        (self.directory / "log.yaml").write_text(json.dumps({
            "version": 1, "formatters": {"short": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
            "handlers": {"file": {"class": "logging.FileHandler", "filename": str(self.directory / "log"),
                                  "formatter": "short"}},
            "root": {"level": "INFO", "handlers": ["file"]}, "disable_existing_loggers": False}))
        subprocess.run([self.python, "-m", "synapse.app.homeserver", "-c", str(self.directory / "homeserver.yaml"),
                        "--generate-keys"], check=True, capture_output=True)

    def launch(self):
        with open(self.directory / "errors", "ab") as errors:
            return subprocess.Popen(
                [self.python, "-m", "synapse.app.homeserver", "-c", str(self.directory / "homeserver.yaml")],
                stdout=subprocess.DEVNULL, stderr=errors, cwd=self.directory)

    def log(self):
        errors = self.directory / "errors"
        return (errors.read_text(errors="replace")[-4000:] if errors.exists() else "") + super().log()
