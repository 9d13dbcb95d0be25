"""Real servers for a machine in miniature: names over UDP and TCP, and lines of text at chosen addresses.

Called with a JSON object: `names` (name to addresses), `resolvers`, `dead` (addresses that never answer, at port 53), `hello`
(pairs of address and port that say hello), `proxy` (address and port of an HTTP proxy, which knows the name `behind.example`), `asked` (a
file for the names that were asked for), `ready` (a file that appears).
"""
import ipaddress, json, socket, struct, sys, threading, time

config = json.loads(sys.argv[1])
asked = open(config["asked"], "a", buffering=1)


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def bound(address, port, kind):
    server = socket.socket(family(address), kind)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, port))
    return server


def answer(query, how):
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode())
        at += 1 + query[at]
    kind = struct.unpack(">H", query[at + 1 : at + 3])[0]
    question, name = query[12 : at + 5], ".".join(labels).lower()
    asked.write(f"{how} {name} {kind}\n")
    entry = config["names"].get(name)
    if entry == "broken":
        return query[:2] + b"\x81\x82\0\1\0\0\0\0\0\0" + question
    if entry is None:
        return query[:2] + b"\x81\x83\0\1\0\0\0\0\0\0" + question
    if len(entry) > 20 and how == "udp":
        return query[:2] + b"\x83\x80\0\1\0\0\0\0\0\0" + question
    records = [ipaddress.ip_address(address).packed for address in entry]
    records = [packed for packed in records if len(packed) == {1: 4, 28: 16}.get(kind)]
    body = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(packed)) + packed for packed in records)
    return query[:2] + b"\x81\x80\0\1" + struct.pack(">H", len(records)) + b"\0\0\0\0" + question + body


def names_by_datagram(server):
    while True:
        query, sender = server.recvfrom(65535)
        server.sendto(answer(query, "udp"), sender)


def names_by_stream(server):
    while True:
        stream, _ = server.accept()
        with stream:
            length = stream.recv(2, socket.MSG_WAITALL)
            if len(length) == 2:
                reply = answer(stream.recv(struct.unpack(">H", length)[0], socket.MSG_WAITALL), "tcp")
                stream.sendall(struct.pack(">H", len(reply)) + reply)


def hello(server, address, port):
    while True:
        stream, _ = server.accept()
        with stream:
            stream.sendall(f"hello from {address} {port}\n".encode())


def proxy(server):
    while True:
        stream, _ = server.accept()
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += stream.recv(1)
        line, *fields = head.decode().split("\r\n")
        asked.write(line + "".join(" " + field for field in fields if "authorization" in field.lower()) + "\n")
        host, port = line.split()[1].rsplit(":", 1)
        if host == "forbidden.example":
            stream.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            stream.close()
            continue
        upstream = socket.create_connection(("198.51.100.7", int(port)))
        stream.sendall(b"HTTP/1.1 200 Connected\r\nVia: test\r\n\r\n" + upstream.recv(1000))
        stream.shutdown(socket.SHUT_WR)


def start(function, *arguments):
    threading.Thread(target=function, args=arguments, daemon=True).start()


for address in config["resolvers"]:
    start(names_by_datagram, bound(address, 53, socket.SOCK_DGRAM))
    stream = bound(address, 53, socket.SOCK_STREAM)
    stream.listen(64)
    start(names_by_stream, stream)
silent = [bound(address, 53, socket.SOCK_DGRAM) for address in config["dead"]]
for address, port in config["hello"]:
    server = bound(address, port, socket.SOCK_STREAM)
    server.listen(64)
    start(hello, server, address, port)
for address, port in config["proxy"]:
    server = bound(address, port, socket.SOCK_STREAM)
    server.listen(64)
    start(proxy, server)
abstract = socket.socket(socket.AF_UNIX)
abstract.bind("\0fodder-test-world")
abstract.listen(64)
start(hello, abstract, "abstract", 0)
echo = bound("198.51.100.7", 7, socket.SOCK_DGRAM)


def echo_datagrams():
    while True:
        data, sender = echo.recvfrom(65535)
        echo.sendto(data, sender)


start(echo_datagrams)
open(config["ready"], "w").close()
time.sleep(600)
