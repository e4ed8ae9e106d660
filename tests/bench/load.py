"""The two ends of the benchmark's load: `serve PORT` in a pod, `measure HOST PORT` wherever the way to it begins.

A connection begins with a letter and a length (8 bytes, big endian): `s` sends that much to the server, which then answers one
byte; `g` gets that much from it; `e` has everything echoed. No end of a direction is needed: not every way carries one.
"""
import json, socket, statistics, sys, threading, time

BULK = 128 << 20
CHUNK = 256 << 10
PINGS = 500
CONNECTIONS = 200


def receive(connection, count):
    buffer = bytearray(CHUNK)
    while count:
        n = connection.recv_into(buffer, min(count, CHUNK))
        if n == 0:
            raise EOFError
        count -= n


def send(connection, count):
    chunk = bytes(CHUNK)
    for _ in range(count // CHUNK):
        connection.sendall(chunk)


def exactly(connection, count):
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def attend(connection):
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection:
        header = exactly(connection, 9)
        kind, count = header[:1], int.from_bytes(header[1:], "big")
        if kind == b"s":
            receive(connection, count)
            connection.sendall(b"!")
        elif kind == b"g":
            send(connection, count)
            connection.recv(1)
        else:
            while data := connection.recv(CHUNK):
                connection.sendall(data)


def serve(port):
    listener = socket.create_server(("", port), backlog=1024)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=attend, args=(connection,), daemon=True).start()


def measure(host, port):
    def connect(kind, count=0):
        connection = socket.create_connection((host, port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(kind + count.to_bytes(8, "big"))
        return connection

    def bulk(kind, move):
        start = time.monotonic()
        with connect(kind, BULK) as connection:
            move(connection, BULK)
            if kind == b"s":
                exactly(connection, 1)
            return (BULK >> 20) / (time.monotonic() - start)

    def pings():
        times = []
        with connect(b"e") as connection:
            for _ in range(PINGS):
                start = time.monotonic()
                connection.sendall(bytes(64))
                exactly(connection, 64)
                times.append((time.monotonic() - start) * 1000)
        return times

    def connections():
        start = time.monotonic()
        for _ in range(CONNECTIONS):
            with connect(b"e") as connection:
                connection.sendall(b"?")
                exactly(connection, 1)
        return CONNECTIONS / (time.monotonic() - start)

    times = pings()
    print(json.dumps({
        "up": bulk(b"s", send),
        "down": bulk(b"g", receive),
        "ping_p50": statistics.median(times),
        "ping_p99": statistics.quantiles(times, n=100)[98],
        "connections": connections(),
    }))


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
else:
    measure(sys.argv[2], int(sys.argv[3]))
