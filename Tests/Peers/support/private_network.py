"""A network of a test's own, with names and all ports: for a process that was started by `unshare --map-root-user --net --mount`."""

import fcntl
import pathlib
import socket
import struct
import subprocess
import threading


def enter(directory):
    """Brings loopback up and has names be asked for at 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        # SIOCSIFFLAGS, IFF_UP and IFF_RUNNING.
        fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", b"lo", 0x1 | 0x40))
    for name, text in (("resolv.conf", "nameserver 127.0.0.1\noptions timeout:2\n"), ("hosts", "127.0.0.1 localhost\n"),
                       ("nsswitch.conf", "hosts: files dns\n")):
        place = pathlib.Path(directory) / name
        place.write_text(text)
        subprocess.run(["mount", "--bind", str(place), f"/etc/{name}"], check=True)


class NameServer:
    """Answers for the names of a test: addresses (A) and services (SRV, as priority, weight, port, target)."""

    A, SRV = 1, 33

    def __init__(self, addresses, services):
        self.records = {(name, self.A): socket.inet_aton(address) for name, address in addresses.items()}
        for name, (priority, weight, port, target) in services.items():
            self.records[name, self.SRV] = struct.pack("!HHH", priority, weight, port) + self.encoded(target)
        self.names = {name for name, _ in self.records}
        self.asked = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 53))
        threading.Thread(target=self.serve, daemon=True).start()

    @staticmethod
    def encoded(name):
        return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"

    def serve(self):
        while True:
            question, sender = self.socket.recvfrom(4096)
            labels, place = [], 12
            while question[place]:
                labels.append(question[place + 1:place + 1 + question[place]].decode())
                place += 1 + question[place]
            kind, = struct.unpack_from("!H", question, place + 1)
            name = ".".join(labels).lower()
            self.asked.append((name, kind))
            data = self.records.get((name, kind))
            # Authoritative; 3 says that there is no such name.
            flags = 0x8400 | (0 if name in self.names else 3)
            answer = struct.pack("!2sHHHHH", question[:2], flags, 1, 1 if data else 0, 0, 0) + question[12:place + 5]
            if data:
                answer += struct.pack("!HHHIH", 0xC00C, kind, 1, 60, len(data)) + data
            self.socket.sendto(answer, sender)
