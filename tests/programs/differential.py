"""What a program can find out about the network that it is in: `serve` in pods, `probe FACTS` wherever it is to be found out.

`probe` prints a line for each of its cases, or of those that are named: `NAME: OUTCOME`, always in the same order. The cases are products:
all ways to name a target, times all ways to resolve it, to connect to it, or to send to it. FACTS is a JSON object: the target's
`namespace` and `pod`, and `addresses` of the cluster by their names here.

Two runs print the same where the network does the same. So what differs from run to run is left out or replaced:
- the namespace is NS, the target's pod POD, and an address of FACTS <NAME>, also where it is reversed or has dashes;
- of the own address of whoever runs it, there is only whether it is that;
- ephemeral ports, TTLs, ids and cookies of DNS, and the numbers of SOA records are left out;
- records and addresses are sorted, as nameservers shuffle them; of many there is only the number;
- what either pod of a Service may say is said by "one of them";
- of a connection that fails there is only the error, and not at which step it showed: after a reset, that is a matter of chance.

The server does at each port what PORTS says, by TCP, and at some what ANSWERING says, by UDP. At CLOSED nobody listens, and MISSING is no
port of any Service.
"""
import concurrent.futures, errno, hashlib, ipaddress, json, os, re, select, socket, ssl, struct, subprocess, sys, threading, time, uuid
from itertools import product

PORTS = {
    "ask": 9001,  # answers a line
    "greet": 9002,  # speaks first, and then echoes
    "half": 9003,  # answers after the other end's end
    "reset": 9004,
    "close": 9005,
    "confirmed": 9006,  # resets once its answer has been confirmed
    "unread": 9007,  # answers, and leaves a request unread
    "first": 9008,  # ends its own direction, and then notes the fate of the connection
    "ended": 9015,  # ends its own direction, and resets the connection when it is told to
    "fate": 9009,  # notes what becomes of the connection
    "told": 9010,  # tells that
    "turns": 9011,  # answers the connections of a party in turns: the one that came last is the first
    "urgent": 9012,  # tells all it got, what was urgent in its place
    "whence": 9016,  # tells who asks
    "silent": 9013,
    "full": 9014,  # its queue is full: connections are not answered
    "ready": 9000,  # as soon as all others are
}
CLOSED, MISSING = 9020, 9999
SHORT, LONG = 1, 20  # seconds, for what does not come and for what does
ENOUGH = 150  # seconds, after which no case is begun: where nothing works, the report comes all the same
MIB = 1 << 20
CROWD = 8  # records of which only the number is told
NAME = socket.gethostname()


# ---------------------------------------------------------------------------------------------------------------- the server

fates, known = {}, threading.Condition()
parties, arrived = {}, threading.Condition()


def line(connection):
    said = b""
    while not said.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            break
        said += byte
    return said.decode().strip()


def everything(connection):
    said = b""
    while piece := connection.recv(MIB):
        said += piece
    return said


def digest(data):
    return f"{len(data)} bytes {hashlib.sha256(data).hexdigest()[:8]}"


def abort(connection):
    """The next close is a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def note(connection, confirmation=b"noted\n"):
    """The first line is the connection's name."""
    name, count, end = line(connection), 0, "end"
    try:
        if confirmation:
            connection.sendall(confirmation)
        while piece := connection.recv(MIB):
            count += len(piece)
    except OSError as error:
        end = errno.errorcode[error.errno]
    fate = f"{count} bytes, {end}"
    with known:
        fates[name] = fate
        known.notify_all()


def ask(connection):
    connection.sendall(f"{NAME} {line(connection)}".encode())


def whence(connection):
    connection.sendall("{} {}".format(*connection.getpeername()).encode())


def greet(connection):
    connection.sendall(f"220 {NAME}\n".encode())
    while piece := connection.recv(MIB):
        connection.sendall(piece)


def half(connection):
    connection.sendall(digest(everything(connection)).encode())


def confirmed(connection):
    connection.sendall(b"an answer\n")
    line(connection)
    abort(connection)


def unread(connection):
    select.select([connection], [], [])
    connection.sendall(b"an answer\n")


def ended(connection):
    connection.sendall(b"an answer\n")
    connection.shutdown(socket.SHUT_WR)
    line(connection)
    abort(connection)


def first(connection):
    connection.shutdown(socket.SHUT_WR)
    note(connection, b"")


def told(connection):
    name = line(connection)
    with known:
        known.wait_for(lambda: name in fates)
    connection.sendall(fates[name].encode())


def take_turns(connection):
    """The line says which party it is, and of how many."""
    name, count = line(connection).split()
    with arrived:
        party = parties.setdefault(name, [])
        party.append(threading.Event())
        own = len(party) - 1
        if len(party) == int(count):
            party[-1].set()
    connection.sendall(b"noted\n")
    party[own].wait()
    connection.sendall(b"an answer")
    connection.shutdown(socket.SHUT_WR)
    everything(connection)
    if own:
        party[own - 1].set()


def urgent(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    connection.sendall(everything(connection) or b"nothing")


ATTENDING = {
    "ask": ask,
    "greet": greet,
    "half": half,
    "reset": abort,
    "close": lambda connection: None,
    "confirmed": confirmed,
    "unread": unread,
    "first": first,
    "ended": ended,
    "fate": note,
    "told": told,
    "turns": take_turns,
    "urgent": urgent,
    "whence": whence,
    "silent": everything,
    "ready": lambda connection: None,
}


def handle(connection, attend):
    with connection:
        try:
            attend(connection)
        except OSError:
            pass  # reset by the other end


def accept(listener, attend):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=handle, args=(connection, attend), daemon=True).start()


def receive(server, answer):
    while True:
        data, peer = server.recvfrom(1 << 16)
        if (said := answer(data, peer)) is not None:
            server.sendto(said, peer)


ANSWERING = {
    "ask": lambda data, peer: data,
    "whence": lambda data, peer: "{} {}".format(*peer[:2]).encode(),
    "silent": lambda data, peer: None,
}


def serve():
    kept = []
    for name, port in PORTS.items():
        if name in ATTENDING:
            for family in socket.AF_INET, socket.AF_INET6:
                listener = socket.create_server(("", port), family=family, backlog=1024)
                threading.Thread(target=accept, args=(listener, ATTENDING[name])).start()
        if name == "full":
            kept += [socket.create_server(("", port), backlog=0), socket.create_connection(("127.0.0.1", port))]
        if name in ANSWERING:
            for family in socket.AF_INET, socket.AF_INET6:
                server = socket.socket(family, socket.SOCK_DGRAM)
                if family == socket.AF_INET6:
                    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                server.bind(("", port))
                threading.Thread(target=receive, args=(server, ANSWERING[name])).start()
    threading.Event().wait()


# ----------------------------------------------------------------------------------------------------- what outcomes are called

GAI = {value: name for name, value in vars(socket).items() if name.startswith("EAI_")}


def named(action, *args):
    """What an action comes to: what it returns, or the error's name."""
    try:
        return action(*args)
    except socket.gaierror as error:
        return GAI[error.errno]
    except socket.herror:
        return "HOST_ERROR"
    except OSError as error:
        if error.errno in errno.errorcode:
            return errno.errorcode[error.errno]
        return "nothing" if isinstance(error, TimeoutError) else type(error).__name__


def replacements(facts):
    yield re.compile(re.escape(facts["pod"]), re.IGNORECASE), "POD"
    yield re.compile(re.escape(facts["namespace"]), re.IGNORECASE), "NS"
    for label, address in facts["addresses"].items():
        parts = address.split(".")
        forms, digit = [address, "-".join(parts), ".".join(reversed(parts))], r"\d"
        if ":" in address:
            forms, digit = [address, ipaddress.ip_address(address).reverse_pointer.removesuffix(".ip6.arpa")], r"[\da-f:]"
        for form in forms:
            # What goes on is another address.
            yield re.compile(rf"(?<!{digit})(?<![.-]){re.escape(form)}(?!{digit}|[.-]{digit})"), f"<{label}>"


RULES = []


def normal(text):
    for pattern, label in RULES:
        text = pattern.sub(label, text)
    return text.replace("\n", " ")


def several(found):
    """In an order that is not that of addresses, which are others in every run."""
    found = sorted(set(map(normal, found)))
    return ", ".join(found) if len(found) <= CROWD else f"{len(found)} of them"


def own_address(beyond):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect((beyond, 9))
        return s.getsockname()[0]


# --------------------------------------------------------------------------------------------------------------- the table

CASES = {}


def case(name, action, *args):
    assert ": " not in name, name
    assert CASES.setdefault(name, (action, args)) == (action, args), f"{name} is there twice"


def dashed(address):
    return address.replace(".", "-")


def names(ns, at):
    """Everything that may be looked up, whether it is there or not."""
    full = f".{ns}.svc.cluster.local"
    return [
        # A Service.
        "peer", f"peer.{ns}", f"peer.{ns}.svc", f"peer{full}", f"peer{full}.",
        "PEER", f"PEER{full}".upper(), f"Peer.{ns}.svc.Cluster.local.",
        "peer.", f"peer.{ns}.", f"peer.{ns}.svc.cluster",
        # Its pods, by a Service without an address.
        "headless", f"headless{full}", "peer-0.headless", f"PEER-1.headless.{ns}", f"peer-1.headless{full}.", "peer-2.headless",
        f"{dashed(at['peer-0'])}.{ns}.pod.cluster.local", f"{dashed(at['peer-0'])}.headless",
        # Services of IPv6, and of both families.
        "six", f"six{full}.", "dual", f"dual.{ns}",
        # Aliases.
        "renamed", f"renamed{full}.", "external", f"external{full}.", "dangling",
        "alias.of.the.pod", "ALIAS.of.the.pod", "alias.of.the.pod.", "alias",
        # Services without endpoints, and with many.
        "empty", "hollow", "crowd",
        # Beyond the namespace.
        "somewhere.someplace.cloud.example.com", "somewhere.someplace.cloud.example.com.",
        "SOMEWHERE.someplace.cloud.example.com", "someplace.cloud.example.com",
        "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local.", "kube-dns.kube-system",
        # What is not there.
        "nowhere", "nowhere.", f"nowhere.{ns}", f"nowhere{full}.", "nowhere.example.com", "nowhere.example.com.",
        "nowhere.nowhere.svc.cluster.local",
        # This machine.
        "localhost", "LOCALHOST", "a.localhost",
        # Other names.
        f"_ask._tcp.peer{full}", "xn--bcher-kva.example", "bücher.example", "under_score", "-peer", "pe er", "peer..headless",
        "a" * 63, "a" * 64, ".".join(["a" * 63] * 4), "", ".", "..",
    ]  # fmt: skip


def literals(at):
    return [
        *at.values(), "127.0.0.1", "127.1", "0x7f.1", "2130706433", "0", "::1", f"::ffff:{at['peer']}", "fd00::1", "fe80::1%lo",
        "256.1.1.1", "1.2.3.4.5",
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ names, resolved

FAMILIES = {"UNSPEC": socket.AF_UNSPEC, "INET": socket.AF_INET, "INET6": socket.AF_INET6}
HINTS = {
    "": 0,
    " CANONNAME": socket.AI_CANONNAME,
    " ADDRCONFIG": socket.AI_ADDRCONFIG,
}


def addresses(name, family, flags):
    found = socket.getaddrinfo(name.encode(), 80, family, socket.SOCK_STREAM, 0, flags)
    canonical = [f"canonical {found[0][3]}"] if found[0][3] else []
    return "; ".join([*canonical, several(sockaddr[0] for *_, sockaddr in found)])


def by_name(name):
    canonical, aliases, found = socket.gethostbyname_ex(name.encode())
    return f"{canonical}; {several(aliases)}; {several(found)}"


def by_address(address):
    canonical, aliases, found = socket.gethostbyaddr(address)
    return f"{several([canonical, *aliases])}; {several(found)}"


def name_required(address):
    return " ".join(socket.getnameinfo((address, 80), socket.NI_NAMEREQD))


def services(name, kind):
    found = socket.getaddrinfo(name, "http", socket.AF_INET, kind)
    return several(f"{type.name} {protocol} {sockaddr[1]}" for _, type, protocol, _, sockaddr in found)


def resolving(ns, at):
    for name in names(ns, at) + literals(at):
        case(f"gethostbyname_ex '{name}'", by_name, name)
        for (family, number), (hint, flags) in product(FAMILIES.items(), HINTS.items()):
            # It goes by the interfaces, as much as there is to see of that by names.
            if name not in literals(at) or flags != socket.AI_ADDRCONFIG:
                case(f"getaddrinfo {family}{hint} '{name}'", addresses, name, number, flags)
        case(f"getaddrinfo INET6 V4MAPPED '{name}'", addresses, name, socket.AF_INET6, socket.AI_V4MAPPED)
        case(f"getaddrinfo UNSPEC NUMERICHOST '{name}'", addresses, name, 0, socket.AI_NUMERICHOST)
    for address in [*at.values(), "127.0.0.1", "198.19.255.254", "::1", "fd00::1"]:
        # That pod has a name for each of its Services, of which they pick any.
        if address not in (at["peer-0"], at["six-peer-0"]):
            case(f"gethostbyaddr {address}", by_address, address)
            case(f"getnameinfo {address}", name_required, address)
    for kind in 0, socket.SOCK_STREAM, socket.SOCK_DGRAM:
        case(f"getaddrinfo of http, kind {kind}", services, "peer", kind)


# --------------------------------------------------------------------------------------------------------------------- DNS

TYPES = "A AAAA SRV TXT PTR CNAME MX ANY NS SOA HTTPS CAA".split()
SECTION = re.compile(r";; (ANSWER|AUTHORITY|ADDITIONAL) SECTION:")


def dig(*words):
    """All that an answer says."""
    command = ["dig", "+nocmd", "+noall", "+comments", "+answer", "+authority", "+additional", "+nottlid", "+nocookie", "+time=5", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode:
        return f"exit code {done.returncode}"
    told, sections, section = [], {}, None
    for said in done.stdout.splitlines():
        if found := re.match(r";; ->>HEADER<<- opcode: (\w+), status: (\w+)", said):
            told.append(" ".join(found.groups()))
        elif found := re.match(r";; flags: ([a-z ]*);", said):
            told.append(found[1])
        elif found := re.match(r"; (EDNS: .*)", said):
            told.append(found[1])
        elif found := SECTION.match(said):
            section = sections.setdefault(found[1].lower(), [])
        elif said and not said.startswith(";"):
            record = re.sub(r"( SOA \S+ \S+) .*", r"\1", " ".join(said.split()))
            section.append(record)
    return "; ".join(told + [f"{name}: {several(records)}" for name, records in sections.items()])


def asking(ns, at):
    full = f".{ns}.svc.cluster.local."
    owners = [
        *(name + full for name in ["peer", "PEER", "headless", "peer-0.headless", "renamed", "external", "dangling", "empty", "hollow", "six", "dual"]),
        f"_ask._tcp.peer{full}", f"_ask._udp.peer{full}", f"_ask._tcp.headless{full}", f"nowhere{full}", f"{ns}.svc.cluster.local.",
        "cluster.local.", "dns-version.cluster.local.", "kubernetes.default.svc.cluster.local.", "somewhere.someplace.cloud.example.com.",
        "nowhere.example.com.", "nowhere.", "com.", ".",
    ]  # fmt: skip
    for owner, kind in product(owners, TYPES):
        case(f"dig {owner} {kind}", dig, owner, kind)
    for address in [*at.values(), "127.0.0.1", "198.19.255.254", "::1", "fd00::1"]:
        case(f"dig -x {address}", dig, "-x", address)
    options = [
        "+tcp", "+noedns", "+bufsize=512", "+bufsize=4096", "+ignore", "+ignore +noedns", "+norecurse", "+cdflag", "+adflag", "+noadflag",
        "+dnssec", "+nsid", "+subnet=192.0.2.0/24", "+edns=1", "+ednsflags=1", "+ednsopt=65001:00", "+zflag", "+opcode=status",
        "+opcode=notify", "+opcode=update", "+header-only", "+keepopen +tcp", "-c CH", "-c HS", "-c ANY",
    ]  # fmt: skip
    for owner, option in product([f"peer{full}", f"crowd{full}", f"nowhere{full}"], options):
        case(f"dig {option} {owner}", dig, *option.split(), owner)
    for name, kind in product(["peer", f"peer.{ns}", "headless", "kubernetes.default", "nowhere", "alias", "dual"], ["A", "AAAA", "SRV"]):
        case(f"dig +search {name} {kind}", dig, "+search", name, kind)
    for transport, kind in product(["+tcp", "+notcp"], ["A", "AAAA", "SRV"]):
        case(f"dig {transport} @kube-dns peer {kind}", dig, transport, f"@{at['kube-dns']}", f"peer{full}", kind)


# --------------------------------------------------------------------------------------------------------------------- TCP


def tcp(family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.settimeout(LONG)
    return s


def address(host):
    """IPv4 if there is any."""
    found = socket.getaddrinfo(host.encode(), 0, 0, socket.SOCK_STREAM)
    return sorted((family, sockaddr[0]) for family, *_, sockaddr in found)[0][1]


def to(host, port):
    """A socket of the address's family, and the address."""
    host = address(host)
    return tcp(socket.AF_INET6 if ":" in host else socket.AF_INET), (host, port)


def create_connection(host, port):
    return socket.create_connection((host, port), LONG), ""


def with_timeout(host, port):
    s, there = to(host, port)
    s.connect(there)
    return s, ""


def patiently(s):
    """Makes it a blocking one, which a timeout of Python's does not allow; the kernel has its own."""
    s.setblocking(True)
    for option in socket.SO_RCVTIMEO, socket.SO_SNDTIMEO:
        s.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", LONG, 0))


def blocking(host, port):
    s, there = to(host, port)
    patiently(s)
    s.connect(there)
    return s, ""


def connect_ex(host, port):
    s, there = to(host, port)
    if code := s.connect_ex(there):
        raise OSError(code, "connect_ex")
    return s, ""


def non_blocking(host, port):
    s, there = to(host, port)
    s.setblocking(False)
    before = s.connect_ex(there)
    if before not in (0, errno.EINPROGRESS):
        raise OSError(before, "connect_ex")
    select.select([], [s], [], LONG)
    if code := s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(code, "SO_ERROR")
    again = [errno.errorcode.get(code, code) for code in (s.connect_ex(there), s.connect_ex(there))]
    s.settimeout(LONG)
    return s, f"; connecting again: {again}"


def mapped(host, port):
    s = tcp(socket.AF_INET6)
    s.connect((f"::ffff:{address(host)}", port))
    return s, ""


def bound(host, port):
    s, there = to(host, port)
    s.bind(("", 0))
    own = s.getsockname()[1]
    s.connect(there)
    return s, f"; own port kept: {s.getsockname()[1] == own}"


def bound_to_own(host, port):
    s, there = to(host, port)
    s.bind((own_address(there[0]), 0))
    s.connect(there)
    return s, ""


def reusing(host, port):
    s, there = to(host, port)
    for option in socket.SO_REUSEADDR, socket.SO_REUSEPORT:
        s.setsockopt(socket.SOL_SOCKET, option, 1)
    s.bind(("", 0))
    s.connect(there)
    return s, ""


OPTIONS = {
    "SO_KEEPALIVE": (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    "TCP_KEEPIDLE": (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 7),
    "TCP_KEEPINTVL": (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 3),
    "TCP_KEEPCNT": (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2),
    "TCP_USER_TIMEOUT": (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000),
    "TCP_NODELAY": (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    "TCP_SYNCNT": (socket.IPPROTO_TCP, socket.TCP_SYNCNT, 3),
    "IP_TOS": (socket.IPPROTO_IP, socket.IP_TOS, 0x10),
    "IP_TTL": (socket.IPPROTO_IP, socket.IP_TTL, 33),
    "SO_RCVBUF": (socket.SOL_SOCKET, socket.SO_RCVBUF, 50_000),
    "SO_SNDBUF": (socket.SOL_SOCKET, socket.SO_SNDBUF, 50_000),
}


def with_options(host, port):
    s, there = tcp(), (address(host), port)
    for level, option, value in OPTIONS.values():
        s.setsockopt(level, option, value)
    s.connect(there)
    back = (f"{name}={s.getsockopt(level, option)}" for name, (level, option, _) in OPTIONS.items())
    return s, "; " + " ".join(back)


def fast_open(host, port):
    """The request goes with the first packet, where both kernels have agreed on that before."""
    s, there = to(host, port)
    patiently(s)
    s.sendto(b"fast ", socket.MSG_FASTOPEN, there)
    return s, ""


WAYS = [
    create_connection, with_timeout, blocking, connect_ex, non_blocking, mapped, bound, bound_to_own, reusing, with_options, fast_open,
]  # fmt: skip


def asked(way, host, port):
    s, more = way(host, port)
    with s:
        s.sendall(b"hello\n")
        answer = everything(s).decode()
        peer = s.getpeername()
        return f"{peer[0]} {peer[1]} {answer}{more}"


def either(way, host, port):
    """Which pod it is is chance, in all that names it."""
    peer, rest = asked(way, host, port).split(" ", 1)
    pods = {found[4][0] for found in socket.getaddrinfo("headless", 0, socket.AF_INET)}
    mapped_pods = {f"::ffff:{pod}" for pod in pods}
    return f"{'one of them' if peer in pods | mapped_pods else peer} {re.sub('peer-[01]', 'one of them', rest)}"


def reachable(ns, at):
    full = f".{ns}.svc.cluster.local"
    return [
        "peer", f"peer.{ns}", f"peer.{ns}.svc", f"peer{full}", f"peer{full}.", "PEER", f"PEER{full}".upper(),
        "peer-0.headless", f"peer-1.headless{full}", f"peer-1.HEADLESS.{ns}",
        f"{dashed(at['peer-0'])}.{ns}.pod.cluster.local", "renamed", "alias.of.the.pod", "ALIAS.of.the.pod", "alias",
        at["peer"], at["peer-0"], at["peer-1"],
    ]  # fmt: skip


def reachable_by_v6(ns, at):
    return ["six", f"six.{ns}", at["six"], at["six-peer-0"]]


def failing_in_the_cluster(ns, at):
    return {
        "a closed port of a pod, by IPv6": (at["six-peer-0"], CLOSED),
        "a closed port of a Service of IPv6": ("six", CLOSED),
        "a port that a Service of IPv6 has not": ("six", MISSING),
        "a closed port of the pod's own, by IPv6": (at["six-pod"], CLOSED),
        "no pod's address of IPv6": ("2001:2:0:1ff::1", PORTS["ask"]),
        "an address of IPv6 that is nobody's": ("2001:2:0:ff::1", CLOSED),
        "a closed port of a pod": (at["peer-0"], CLOSED),
        "a closed port of a Service": ("peer", CLOSED),
        "a port that a Service has not": ("peer", MISSING),
        "a Service without endpoints": ("empty", PORTS["ask"]),
        "a Service without endpoints or address": ("hollow", PORTS["ask"]),
        "a closed port of the pod's own": (at["pod"], CLOSED),
        "no Service's address": ("198.19.255.254", PORTS["ask"]),
        "no pod's address": ("198.18.127.254", PORTS["ask"]),
        "a closed port of the API server": ("kubernetes.default", CLOSED),
        "an unknown name": ("nowhere", PORTS["ask"]),
        "an unknown full name": (f"nowhere.{ns}.svc.cluster.local.", PORTS["ask"]),
        "an alias of an unknown name": ("dangling", PORTS["ask"]),
        "an address that is nobody's": ("240.0.0.1", CLOSED),
    }


def failing_here():
    return {
        "127.0.0.1": ("127.0.0.1", CLOSED),
        "localhost": ("localhost", CLOSED),
        "0.0.0.0": ("0.0.0.0", CLOSED),
        "::1": ("::1", CLOSED),
        "255.255.255.255": ("255.255.255.255", CLOSED),
        "224.0.0.1": ("224.0.0.1", CLOSED),
    }


def connected(host, name):
    s, there = to(host, PORTS[name])
    s.connect(there)
    return s


NOTHING_AND = "'', "


def outcome(s):
    """All that comes, and how it ends."""
    said = b""
    while True:
        piece = named(s.recv, MIB)
        if not piece or isinstance(piece, str):
            return f"{said.decode()!r}, {piece or 'end'}"
        said += piece


def fate_of(host, name, action):
    """What the server says of a connection, and what there was here."""
    key = str(uuid.uuid4())
    with connected(host, name) as s:
        s.sendall(f"{key}\n".encode())
        here = action(s)
    with connected(host, "told") as s:
        s.sendall(f"{key}\n".encode())
        there = everything(s).decode()
    return f"{there}; {here}"


def greeted(host):
    with connected(host, "greet") as s:
        said = [line(s)]
        s.sendall(b"hello\n")
        said.append(line(s))
        s.shutdown(socket.SHUT_WR)
        return "; ".join(said + [outcome(s)])


def bulk(host):
    """More than all buffers hold, both ways at once."""
    block = bytes(range(256)) * (4 * MIB >> 8)
    with connected(host, "greet") as s:
        line(s)
        sending = threading.Thread(target=lambda: (s.sendall(block), s.shutdown(socket.SHUT_WR)))
        sending.start()
        received = everything(s)
        sending.join()
    return f"{digest(received)}, the same: {received == block}"


def half_closed(host, size):
    with connected(host, "half") as s:
        s.sendall(b"x" * size)
        s.shutdown(socket.SHUT_WR)
        return f"{outcome(s)}; sending then: {named(s.send, b'x')}"


def by_server(host, name):
    """Nothing is said by this end."""
    with connected(host, name) as s:
        return outcome(s)


def after_reset(host):
    """It may be as early as in connect."""
    s, there = to(host, PORTS["reset"])
    with s:
        said = named(s.connect, there) or outcome(s)
        return f"{said.removeprefix(NOTHING_AND)}; sending: {named(s.send, b'x')}; peer: {named(s.getpeername)}"


def after_confirmation(host):
    with connected(host, "confirmed") as s:
        said = line(s)
        s.sendall(b"confirmed\n")
        return f"{said}; {outcome(s)}"


UNREAD = "'an answer\\n', ECONNRESET"


def left_unread(host, times):
    """The answer is on its way before the reset, and is read before it."""
    outcomes = set()
    for _ in range(times):
        with connected(host, "unread") as s:
            s.sendall(b"x")
            outcomes.add(outcome(s))
    return f"all answers: {outcomes == {UNREAD}}"


def after_close(host, times):
    """What is sent to who has closed is answered by a reset, which shows at the next step."""
    with connected(host, "close") as s:
        said, poll = [outcome(s)], select.poll()
        poll.register(s, 0)
        for _ in range(times):
            said.append(f"sending: {named(s.send, b'x')}")
            if poll.poll(LONG * 1000 if times == 1 else SHORT * 1000):
                said.append("noticed")
                break
        # How often it takes is chance.
        return "; ".join(dict.fromkeys([*said, f"in the end: {named(s.send, b'x')}"]))


def reset_while_ended(host):
    """The server ends its direction, and then resets the connection."""
    with connected(host, "ended") as s:
        said, poll = line(s), select.poll()
        ended = outcome(s)
        poll.register(s, 0)
        s.sendall(b"reset\n")
        noticed = bool(poll.poll(LONG * 1000))
        return f"{said}; {ended}; noticed: {noticed}"


def ended_in_order(s):
    said = line(s)
    s.sendall(b"x" * 1000)
    s.shutdown(socket.SHUT_WR)
    return f"{said}; {outcome(s)}"


def just_closed(s):
    said = line(s)
    s.sendall(b"x" * 1000)
    return said


def aborted(s):
    said = line(s)
    abort(s)
    return said


def aborted_after_bytes(s):
    said = line(s)
    s.sendall(b"x" * 1000)
    abort(s)
    return said


def all_sent(host, times):
    """What was sent is on its way before the reset, and is read before it."""
    fates = {fate_of(host, "fate", aborted_after_bytes) for _ in range(times)}
    return f"all bytes: {fates == {'1000 bytes, ECONNRESET; noted'}}"


def closed_with_unread(s):
    select.select([s], [], [], LONG)
    return "unread"


def shut_down_both(s):
    said = line(s)
    s.shutdown(socket.SHUT_RDWR)
    return f"{said}; {outcome(s)}"


def after_servers_end(s):
    """The server has ended its direction before it says anything."""
    ended = outcome(s)
    s.sendall(b"x" * 1000)
    return ended


def many(host):
    def one(number):
        with connected(host, "ask") as s:
            s.sendall(b"%d\n" % number)
            return everything(s).decode()

    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda number: named(one, number), range(100)))
    return several(re.sub(r" \d+$", " its own number", a) if a.endswith(f" {n}") else a for n, a in enumerate(answers))


def in_turns(host):
    """In which order there are answers, the server alone decides."""
    party, poll, sockets, order = str(uuid.uuid4()), select.poll(), {}, []
    for number in range(5):
        s = connected(host, "turns")
        s.sendall(f"{party} 5\n".encode())
        line(s)
        sockets[s.fileno()] = number, s
        poll.register(s, select.POLLIN)
    while sockets:
        ready = poll.poll(LONG * 1000)
        if len(ready) != 1:
            return f"{order}, then {len(ready)} at once"
        number, s = sockets.pop(ready[0][0])
        poll.unregister(s)
        with s:
            everything(s)
        order.append(number)
    return str(order)


def urgently(host):
    with connected(host, "urgent") as s:
        s.sendall(b"before ")
        s.send(b"!", socket.MSG_OOB)
        s.sendall(b" after")
        s.shutdown(socket.SHUT_WR)
        return outcome(s)


def from_address(host, pod):
    with connected(host, "whence") as s:
        return f"the pod's: {everything(s).decode().split()[0] == pod}"


def from_port(host):
    with connected(host, "whence") as s:
        return f"the same: {int(everything(s).decode().split()[1]) == s.getsockname()[1]}"


def own_end(host):
    with connected(host, "ask") as s:
        return f"the own address: {s.getsockname()[0] == own_address(s.getpeername()[0])}"


def two_from_one_port(at):
    """To two servers, which is what makes it possible."""
    said, sockets = [], [tcp(), tcp()]
    for s in sockets:
        for option in socket.SO_REUSEADDR, socket.SO_REUSEPORT:
            s.setsockopt(socket.SOL_SOCKET, option, 1)
    sockets[0].bind(("", 0))
    sockets[1].bind(sockets[0].getsockname())
    for s, pod in zip(sockets, ["peer-0", "peer-1"]):
        s.connect((at[pod], PORTS["ask"]))
    for s in sockets:
        s.sendall(b"hello\n")
        said.append(everything(s).decode())
        s.close()
    return "; ".join(said)


def not_answered(host):
    """Whether a connection stands before it was answered, and what becomes of it."""
    with tcp() as s:
        s.setblocking(False)
        s.connect_ex((address(host), PORTS["full"]))
        _, stands, _ = select.select([], [s], [], SHORT)
        s.settimeout(LONG)
        code = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        end = errno.errorcode[code] if code else named(s.recv, 1) if stands else "nothing"
        return f"{'stands' if stands else 'does not stand'}; {end}"


def from_bound(own, at):
    with tcp() as s:
        s.bind((own, 0))
        s.connect((at["peer"], PORTS["ask"]))
        s.sendall(b"hello\n")
        return everything(s).decode()


def startup(host):
    """PostgreSQL's question for TLS (SSLRequest), and its answer."""
    s, there = to(host, 5432)
    with s:
        s.connect(there)
        s.sendall(struct.pack("!ii", 8, 80877103))
        return f"{s.getpeername()[0]} {s.recv(1)!r}"


def over_tls(host):
    """The certificate is the cluster's own, and not known here."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    s, there = to(host, 443)
    with s:
        s.connect(there)
        with context.wrap_socket(s, server_hostname=host) as secure:
            secure.sendall(b"GET /version HTTP/1.0\r\nHost: kubernetes\r\n\r\n")
            return f"{secure.version()} {everything(secure).decode().splitlines()[0]}"


def by_curl(url):
    command = ["curl", "-sSk", "--max-time", str(LONG), "-o", "/dev/null", "-w", "%{http_code} %{remote_ip}", url]
    done = subprocess.run(command, capture_output=True, text=True)
    return f"exit code {done.returncode}; {done.stdout}"


def connecting(ns, at):
    for host, way in product(reachable(ns, at), WAYS):
        case(f"tcp ask {way.__name__} '{host}'", asked, way, host, PORTS["ask"])
    for host, way in product(reachable_by_v6(ns, at), [way for way in WAYS if way not in (mapped, bound_to_own, with_options)]):
        case(f"tcp ask {way.__name__} '{host}'", asked, way, host, PORTS["ask"])
    for way in create_connection, fast_open:
        case(f"tcp ask {way.__name__} 'dual'", asked, way, "dual", PORTS["ask"])
    for way in WAYS:
        case(f"tcp ask {way.__name__} 'headless'", either, way, "headless", PORTS["ask"])
    for where, targets in {"in the cluster": failing_in_the_cluster(ns, at), "here": failing_here()}.items():
        for (what, target), way in product(targets.items(), WAYS):
            case(f"tcp fails {where}, {way.__name__}, {what}", asked, way, *target)
    for host, way in product(["127.0.0.1", at["pod"]], WAYS):
        case(f"tcp sidecar {way.__name__} '{host}'", asked, way, host, PORTS["ask"])
    acts = {
        "greeted": greeted,
        "bulk": bulk,
        "many": many,
        "in turns": in_turns,
        "urgent": urgently,
        "reset": after_reset,
        "confirmed, then reset": after_confirmation,
        "ended, then reset": reset_while_ended,
        "own end": own_end,
        "not answered": not_answered,
    }
    hosts = ["peer", at["peer"], at["peer-0"], "peer-0.headless", "alias"]
    for (what, act), host in product(acts.items(), hosts):
        case(f"tcp {what} '{host}'", act, host)
    for what in "greeted", "bulk", "many", "in turns", "reset", "confirmed, then reset", "own end":
        case(f"tcp {what} 'six'", acts[what], "six")
    for host in [*hosts, "six"]:
        case(f"tcp closed '{host}'", by_server, host, "close")
        case(f"tcp answered, then reset '{host}'", left_unread, host, 50)
        for times in 1, LONG:
            case(f"tcp closed, and written to {times} times '{host}'", after_close, host, times)
        case(f"tcp from which address '{host}'", from_address, host, at["pod"])
        for size in 0, 1, 100_000:
            case(f"tcp half-closed after {size} bytes '{host}'", half_closed, host, size)
        for end in ended_in_order, just_closed, aborted, closed_with_unread, shut_down_both:
            case(f"tcp {end.__name__} '{host}'", fate_of, host, "fate", end)
        case(f"tcp after_servers_end '{host}'", fate_of, host, "first", after_servers_end)
        case(f"tcp sent, then reset '{host}'", all_sent, host, 20)
    # Not by a Service's address: on the way from there, the node may choose another port.
    for host in at["peer-0"], "peer-0.headless":
        case(f"tcp from which port '{host}'", from_port, host)
    case("tcp two connections from one port", two_from_one_port, at)
    for own in "127.0.0.1", "0.0.0.0", at["pod"], at["peer-0"]:
        case(f"tcp from {own}", from_bound, own, at)
    for host in "external", "somewhere.someplace.cloud.example.com", "somewhere.someplace.cloud.example.com.", at["cloud"]:
        case(f"tcp startup of the database '{host}'", startup, host)
    for host in "kubernetes.default", "kubernetes.default.svc.cluster.local", at["kubernetes"]:
        case(f"tcp TLS of the API server '{host}'", over_tls, host)
        case(f"curl of the API server '{host}'", by_curl, f"https://{host}/version")
    for port in 53, 1080, 8022:
        case(f"tcp 127.0.0.1 {port}", lambda port: "connected" if connect_ex("127.0.0.1", port) else "", port)


# --------------------------------------------------------------------------------------------------------------------- UDP


def udp(family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(LONG)
    return s


def udp_to(host):
    """A socket of the address's family, and the address."""
    host = address(host)
    return udp(socket.AF_INET6 if ":" in host else socket.AF_INET), host


def answered(s, receive, send, *args):
    """Sends until there is an answer, as whoever uses datagrams has to: on a busy machine some are lost, in the pod as well."""
    s.settimeout(SHORT)
    for _ in range(LONG):
        send(*args)
        try:
            return receive()
        except TimeoutError as error:
            if error.errno:
                raise
    raise TimeoutError


def udp_connected(host, port):
    s, there = udp_to(host)
    s.connect((there, port))
    said = answered(s, lambda: s.recv(100), s.send, b"hello")
    return f"{s.getpeername()[0]} {said}"


def udp_unconnected(host, port):
    s, there = udp_to(host)
    data, whence = answered(s, lambda: s.recvfrom(100), s.sendto, b"hello", (there, port))
    return f"{whence[0]} {data}, from there: {whence[:2] == (there, port)}"


def udp_mapped(host, port):
    s, there = udp(socket.AF_INET6), f"::ffff:{address(host)}"
    data, whence = answered(s, lambda: s.recvfrom(100), s.sendto, b"hello", (there, port))
    return f"{whence[0]} {data}, from there: {whence[:2] == (there, port)}"


def udp_in_pieces(host, port):
    s, there = udp_to(host)
    data, _, flags, whence = answered(s, lambda: s.recvmsg(3), s.sendmsg, [b"he", b"", b"llo"], [], 0, (there, port))
    return f"{whence[0]} {data}, cut off: {bool(flags & socket.MSG_TRUNC)}"


SENDING = [udp_connected, udp_unconnected, udp_mapped, udp_in_pieces]
IP_RECVERR, IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_PKTINFO = 11, 10, 2, 8


def udp_of(size, host):
    (s, there), data = udp_to(host), bytes(range(256)) * 256
    s.connect((there, PORTS["ask"]))
    return f"back: {answered(s, lambda: s.recv(1 << 16), s.send, data[:size]) == data[:size]}"


def udp_whence(host):
    s, there = udp_to(host)
    s.connect((there, PORTS["whence"]))
    there, port = answered(s, lambda: s.recv(100), s.send, b"whence").decode().split()
    return there, int(port), s.getsockname()[1]


def udp_from_address(host, pod):
    return f"the pod's: {udp_whence(host)[0] == pod}"


def udp_from_port(host):
    _, there, here = udp_whence(host)
    return f"the same: {there == here}"


def udp_fails(prepare, host, port):
    """Asked again and again: of messages that nobody is there, kernels send so many a second and no more."""
    s, there = udp_to(host)
    there = there, port
    s.settimeout(SHORT / 4)
    prepare(s, there)
    for _ in range(4 * LONG):
        s.sendto(b"anybody?", there) if prepare is with_errors else s.send(b"anybody?")
        if (answer := named(s.recv, 100)) != "nothing":
            return str(answer)
    return "nothing"


def to_one(s, there):
    s.connect(there)


def with_errors(s, there):
    s.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)


def udp_silent(prepare, host, port):
    s, there = udp(), (address(host), port)
    s.settimeout(SHORT)
    prepare(s, there)
    s.sendto(b"anybody?", there) if prepare is not to_one else s.send(b"anybody?")
    # A late answer to a socket that had this port before is none.
    while not isinstance(answer := named(s.recvfrom, 100), str) and answer[1][:2] != there:
        pass
    return str(answer)


def udp_unfragmented(host, size):
    s = udp()
    s.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
    s.connect((address(host), PORTS["ask"]))
    return f"back: {answered(s, lambda: s.recv(1 << 16), s.send, b'x' * size) == b'x' * size}"


def udp_receivers_address(host):
    s = udp()
    s.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    _, messages, _, _ = answered(s, lambda: s.recvmsg(100, 100), s.sendto, b"hello", (address(host), PORTS["ask"]))
    return f"the own address: {socket.inet_ntoa(messages[0][2][8:12]) == own_address(address(host))}"


def udp_two_from_one_port(at):
    sockets = [udp(), udp()]
    for s in sockets:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sockets[0].bind(("", 0))
    sockets[1].bind(("", sockets[0].getsockname()[1]))
    for s, pod in zip(sockets, ["peer-0", "peer-1"]):
        s.connect((at[pod], PORTS["ask"]))
    pairs = zip(sockets, ["peer-0", "peer-1"])
    return "; ".join(answered(s, lambda: s.recv(100), s.send, pod.encode()).decode() for s, pod in pairs)


def udp_many(host):
    sockets, there = [udp_to(host)[0] for _ in range(100)], address(host)
    for number, s in enumerate(sockets):
        s.connect((there, PORTS["ask"]))
        s.send(b"%d" % number)
    back = [answered(s, lambda: s.recv(100), s.send, b"%d" % number) for number, s in enumerate(sockets)]
    return f"{sum(said == b'%d' % number for number, said in enumerate(back))} of 100"


def udp_rebound(at):
    """One socket, one peer after the other."""
    s, said = udp(), []
    for pod in "peer-0", "peer-1", "peer-0":
        s.connect((at[pod], PORTS["ask"]))
        said.append(answered(s, lambda: s.recv(100), s.send, pod.encode()).decode())
    return "; ".join(said)


def broadcast(allowed):
    s = udp()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, allowed)
    return s.sendto(b"x", ("255.255.255.255", CLOSED))


def sending(ns, at):
    for host, way in product(reachable(ns, at), SENDING):
        case(f"udp {way.__name__} '{host}'", way, host, PORTS["ask"])
    for host, way in product(reachable_by_v6(ns, at), [udp_connected, udp_unconnected, udp_in_pieces]):
        case(f"udp {way.__name__} '{host}'", way, host, PORTS["ask"])
    for size in 0, 1, 1472, 1473, 9000:
        case(f"udp {size} bytes 'six'", udp_of, size, "six")
    case("udp many 'six'", udp_many, "six")
    case("udp from which address 'six'", udp_from_address, "six", at["six-pod"])
    hosts = ["peer", at["peer"], at["peer-0"], "peer-0.headless", "alias"]
    for size, host in product([0, 1, 512, 1472, 1473, 9000, 65_507, 65_508], hosts):
        case(f"udp {size} bytes '{host}'", udp_of, size, host)
    for host in hosts:
        case(f"udp from which address '{host}'", udp_from_address, host, at["pod"])
        case(f"udp many '{host}'", udp_many, host)
        case(f"udp address of the receiver '{host}'", udp_receivers_address, host)
        for size in 1400, 2000:
            case(f"udp {size} bytes in one piece '{host}'", udp_unfragmented, host, size)
        for prepare in to_one, with_errors:
            case(f"udp silent {prepare.__name__} '{host}'", udp_silent, prepare, host, PORTS["silent"])
    for where, targets in {"in the cluster": failing_in_the_cluster(ns, at), "here": failing_here()}.items():
        for (what, target), prepare in product(targets.items(), [to_one, with_errors]):
            case(f"udp fails {where}, {prepare.__name__}, {what}", udp_fails, prepare, *target)
    for host in "127.0.0.1", at["pod"]:
        case(f"udp sidecar '{host}'", udp_connected, host, PORTS["ask"])
    for host in at["peer-0"], "peer-0.headless":
        case(f"udp from which port '{host}'", udp_from_port, host)
    case("udp two sockets of one port", udp_two_from_one_port, at)
    case("udp one peer after the other", udp_rebound, at)
    for allowed in False, True:
        case(f"udp broadcast, allowed {allowed}", broadcast, allowed)
    case("udp multicast", lambda: udp().sendto(b"x", ("224.0.0.1", CLOSED)))


# --------------------------------------------------------------------------------------------------------------- the rest

VARIABLES = [
    "SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_ASK", "PORT", "PORT_9001_TCP", "PORT_9001_TCP_ADDR", "PORT_9001_TCP_PROTO",
    "PORT_9001_UDP_PORT",
]  # fmt: skip


def keyword(word):
    """The lines of resolv.conf that begin with it."""
    with open("/etc/resolv.conf") as conf:
        return "; ".join(" ".join(said.split()) for said in conf if said.startswith(word))


def pings(host):
    done = subprocess.run(["ping", "-c", "1", "-W", "3", host], capture_output=True)
    return f"answered: {done.returncode == 0}"


def by_environment(service):
    s, _ = create_connection(os.environ[f"{service}_SERVICE_HOST"], int(os.environ[f"{service}_SERVICE_PORT_ASK"]))
    with s:
        s.sendall(b"hello\n")
        return everything(s).decode()


def surroundings(facts, at):
    for service, variable in product(["PEER", "EMPTY"], VARIABLES):
        case(f"environment {service}_{variable}", os.environ.get, f"{service}_{variable}", "not set")
    for variable in "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "KUBERNETES_PORT":
        case(f"environment {variable}", os.environ.get, variable, "not set")
    case("tcp by the environment", by_environment, "PEER")
    for word in "nameserver", "search", "options":
        case(f"resolv.conf {word}", keyword, word)
    case("host name, the target's pod's", lambda: NAME == facts["pod"])
    case("host name, resolved", lambda: f"the own address: {socket.gethostbyname(NAME) == own_address(at['peer'])}")
    for host in "127.0.0.1", "localhost", at["peer-0"], "peer-0.headless":
        case(f"ping '{host}'", pings, host)


def probe(facts, only):
    ns, at = facts["namespace"], facts["addresses"]
    for table in resolving, asking, connecting, sending:
        table(ns, at)
    surroundings(facts, at)
    RULES.extend(replacements(facts))
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        chosen = {normal(name): case for name, case in CASES.items()}
        assert len(chosen) == len(CASES), "two cases have the same name when they are run elsewhere"
        end = time.monotonic() + ENOUGH

        def tried(action, args):
            return named(action, *args) if time.monotonic() < end else "not tried"

        outcomes = [(name, pool.submit(tried, *case)) for name, case in chosen.items() if not only or name in only]
        for name, outcome in outcomes:
            print(f"{name}: {normal(str(outcome.result()))}", flush=True)


match sys.argv[1:]:
    case ["serve"]:
        serve()
    case ["probe", facts, *only]:
        probe(json.loads(facts), only)
