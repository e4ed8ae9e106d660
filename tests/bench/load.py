"""The two ends of the benchmark's load: `serve PORT` in a pod, and wherever a way to it begins `bulk HOST PORT` and `calls HOST PORT`,
which print what they measured. `alone` has both ends in one place: what this program can do without any way between them.

A connection carries requests, each a letter and a length (8 bytes, big endian): `s` sends that much to the server, which then answers
one byte; `g` gets that much from it; `e` has everything from there on echoed. No end of a direction is needed: not every way carries one.
"""
import contextlib, json, os, signal, socket, statistics, sys, threading, time
from concurrent.futures import ThreadPoolExecutor

BULK = 128 << 20  # of one measurement, over all of its streams
PIECE = 16 << 20  # of one request while pings are timed: the last ones are waited for
CHUNK = 256 << 10
PINGS = 500
SECONDS = {"pings": 4, "connections": 2}
# A way that stands still is an error, not a figure.
socket.setdefaulttimeout(60)


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
    # The other end may leave in any way that a way has.
    with connection, contextlib.suppress(EOFError, OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            header = exactly(connection, 9)
            kind, count = header[:1], int.from_bytes(header[1:], "big")
            if kind == b"s":
                receive(connection, count)
                connection.sendall(b"!")
            elif kind == b"g":
                send(connection, count)
            else:
                while data := connection.recv(CHUNK):
                    connection.sendall(data)
                return


def listen(port):
    return socket.create_server(("", port), backlog=1024)


def serve(listener):
    # Ways that are not in use leave it waiting for long.
    listener.settimeout(None)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=attend, args=(connection,), daemon=True).start()


class Way:
    def __init__(self, host, port):
        # Looked up once: other ways have no name to look up.
        self.address = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0][4]

    def connect(self):
        connection = socket.create_connection(self.address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def up(self, connection, count):
        connection.sendall(b"s" + count.to_bytes(8, "big"))
        send(connection, count)
        exactly(connection, 1)

    def down(self, connection, count):
        connection.sendall(b"g" + count.to_bytes(8, "big"))
        receive(connection, count)

    def throughput(self, move, streams):
        def one(_):
            with self.connect() as connection:
                move(connection, BULK // streams)

        start = time.monotonic()
        with ThreadPoolExecutor(streams) as pool:
            list(pool.map(one, range(streams)))
        return (BULK >> 20) / (time.monotonic() - start)

    def pings(self, count, seconds):
        times, end = [], time.monotonic() + seconds
        with self.connect() as connection:
            connection.sendall(b"e" + bytes(8))
            while len(times) < count and time.monotonic() < end:
                start = time.monotonic()
                connection.sendall(bytes(64))
                exactly(connection, 64)
                times.append((time.monotonic() - start) * 1000)
        return statistics.median(times), statistics.quantiles(times, n=100, method="inclusive")[98], max(times)

    def pings_among_bulk(self):
        """Pings while one stream runs up and one down, and how much these move meanwhile."""
        over = threading.Event()

        def flow(move, runs):
            moved, start = 0, time.monotonic()
            try:
                with self.connect() as connection:
                    while not over.is_set():
                        move(connection, PIECE)
                        moved += PIECE >> 20
                        runs.set()
                return moved / (time.monotonic() - start)
            finally:
                runs.set()

        with ThreadPoolExecutor(2) as pool:
            running = threading.Event(), threading.Event()
            flows = [pool.submit(flow, move, runs) for move, runs in zip((self.up, self.down), running)]
            try:
                for runs in running:
                    runs.wait()
                times = self.pings(sys.maxsize, SECONDS["pings"])
            finally:
                over.set()
            return times, sum(flow.result() for flow in flows)

    def connections(self, at_once):
        """New connections per second: each is waited for until it has echoed a byte."""
        start = time.monotonic()
        end = start + SECONDS["connections"]

        def one(_):
            count = 0
            while time.monotonic() < end:
                with self.connect() as connection:
                    connection.sendall(b"e" + bytes(8) + b"?")
                    exactly(connection, 1)
                count += 1
            return count

        with ThreadPoolExecutor(at_once) as pool:
            return sum(pool.map(one, range(at_once))) / (time.monotonic() - start)

    def bulk(self):
        figures = {}
        for streams in 1, 8:
            figures[f"up_{streams}"] = self.throughput(self.up, streams)
            figures[f"down_{streams}"] = self.throughput(self.down, streams)
        return {"gib": len(figures) * BULK / (1 << 30)} | figures

    def calls(self):
        idle = self.pings(PINGS, SECONDS["pings"])
        loaded, moved = self.pings_among_bulk()
        figures = {"loaded_moved": moved}
        for name, (p50, p99, worst) in ("idle", idle), ("loaded", loaded):
            figures |= {f"{name}_p50": p50, f"{name}_p99": p99, f"{name}_max": worst}
        return figures | {f"connections_{n}": self.connections(n) for n in (1, 16)}


match sys.argv[1:]:
    case ["serve", port]:
        serve(listen(int(port)))
    case ["alone"]:
        listener = listen(0)
        # The server is a process of its own, as in a pod.
        if (server := os.fork()) == 0:
            serve(listener)
        way = Way("127.0.0.1", listener.getsockname()[1])
        print(json.dumps(way.bulk() | way.calls()))
        os.kill(server, signal.SIGKILL)
    case ["bulk", host, port]:
        print(json.dumps(Way(host, int(port)).bulk()))
    case ["calls", host, port]:
        print(json.dumps(Way(host, int(port)).calls()))
