//! What a program may find otherwise than in the pod: rows of the reference, and the cases that show each.

/// What cases come to in the pod, and what they come to here instead.
#[derive(Clone, Copy)]
pub(super) struct Difference {
    /// A row of the reference; none for what is not meant to be.
    pub(super) row: &'static str,
    /// Those that come to `pod` in the pod; a `*` in either stands for anything.
    pub(super) cases: &'static str,
    pub(super) pod: &'static str,
    pub(super) here: &'static str,
}

const fn differ(
    row: &'static str,
    cases: &'static str,
    pod: &'static str,
    here: &'static str,
) -> Difference {
    Difference {
        row,
        cases,
        pod,
        here,
    }
}

const CONNECTION: &str = "A connection";
const SOURCE: &str = "The source port";
const OWN: &str = "The own address";
const LOOPBACK: &str = "`127.0.0.1`";
const NAME: &str = "The host name";
const ICMP: &str = "ICMP";
const IPV6: &str = "IPv6";
const URGENT: &str = "Urgent data (MSG_OOB)";
const NO_QUERY: &str = "A DNS message that is no query";

/// With IPv6.
pub(super) const DIFFERENCES: &[Difference] = &[
    differ(
        CONNECTION,
        "tcp fails in the cluster, *",
        "ECONNREFUSED",
        "ECONNRESET",
    ),
    differ(
        CONNECTION,
        "tcp fails in the cluster, *",
        "EHOSTUNREACH",
        "ECONNRESET",
    ),
    differ(
        CONNECTION,
        "tcp not answered *",
        "does not stand; nothing",
        "stands; nothing",
    ),
    differ(
        SOURCE,
        "* from which port *",
        "the same: True",
        "the same: False",
    ),
    differ(OWN, "tcp from <pod>", "peer-0 hello", "EADDRNOTAVAIL"),
    differ(
        LOOPBACK,
        "resolv.conf nameserver",
        "nameserver <kube-dns>",
        "nameserver 127.0.0.1",
    ),
    differ(LOOPBACK, "tcp 127.0.0.1 53", "ECONNREFUSED", "connected"),
    differ(LOOPBACK, "tcp 127.0.0.1 1080", "ECONNREFUSED", "connected"),
    differ(LOOPBACK, "tcp 127.0.0.1 8022", "connected", "ECONNREFUSED"),
    differ(
        LOOPBACK,
        "tcp sidecar * '127.0.0.1'",
        "*127.0.0.1 9001 POD *",
        "ECONNREFUSED",
    ),
    differ(
        LOOPBACK,
        "udp sidecar '127.0.0.1'",
        "127.0.0.1 b'hello'",
        "ECONNREFUSED",
    ),
    differ(NAME, "host name, the target's pod's", "True", "False"),
    differ(
        NAME,
        "gethostbyaddr <pod>",
        "POD; <pod>",
        "<pod>.yourcode-service.NS.svc.cluster.local; <pod>",
    ),
    differ(
        NAME,
        "gethostbyaddr <six-pod>",
        "POD; <six-pod>",
        "HOST_ERROR",
    ),
    differ(NAME, "getnameinfo <six-pod>", "POD http", "EAI_NONAME"),
    differ(
        NAME,
        "getnameinfo <pod>",
        "POD http",
        "<pod>.yourcode-service.NS.svc.cluster.local http",
    ),
    differ(ICMP, "ping '<peer-0>'", "answered: True", "answered: False"),
    differ(
        ICMP,
        "ping 'peer-0.headless'",
        "answered: True",
        "answered: False",
    ),
    differ(
        URGENT,
        "tcp urgent *",
        "'before ! after', end",
        "'before  after', end",
    ),
    differ(
        NO_QUERY,
        "dig +opcode=status *",
        "STATUS NOTIMP; qr rd ad",
        "STATUS NOTIMP; qr rd",
    ),
    differ(
        NO_QUERY,
        "dig +opcode=update *",
        "UPDATE NOTIMP; qr rd ad",
        "UPDATE NOTIMP; qr rd",
    ),
    differ(
        NO_QUERY,
        "dig +opcode=notify *",
        "NOTIFY *",
        "NOTIFY NOTIMP; qr rd",
    ),
    differ(
        NO_QUERY,
        "dig +header-only *",
        "QUERY FORMERR; qr rd ad",
        "QUERY FORMERR; qr rd",
    ),
];

/// What differs besides where Docker has turned IPv6 off.
pub(super) const WITHOUT_IPV6: &[Difference] = &[
    differ(IPV6, "getaddrinfo INET6 ADDRCONFIG *", "*", "EAI_NONAME"),
    differ(
        IPV6,
        "getaddrinfo UNSPEC ADDRCONFIG 'six*",
        "<six>",
        "EAI_NODATA",
    ),
    differ(
        IPV6,
        "getaddrinfo UNSPEC ADDRCONFIG 'dangling'",
        "EAI_NONAME",
        "EAI_NODATA",
    ),
    differ(
        IPV6,
        "getaddrinfo UNSPEC ADDRCONFIG 'dual*",
        "*<dual-4>*",
        "<dual-4>",
    ),
    differ(
        IPV6,
        "getaddrinfo UNSPEC ADDRCONFIG 'localhost'",
        "127.0.0.1, ::1",
        "127.0.0.1",
    ),
    differ(
        IPV6,
        "getaddrinfo UNSPEC ADDRCONFIG 'LOCALHOST'",
        "127.0.0.1, ::1",
        "127.0.0.1",
    ),
    differ(IPV6, "tcp * 'six*'", "*", "EADDRNOTAVAIL"),
    differ(IPV6, "tcp * '<six*'", "*", "EADDRNOTAVAIL"),
    differ(
        IPV6,
        "tcp reset 'six'",
        "*",
        "EADDRNOTAVAIL; sending: EPIPE; peer: ENOTCONN",
    ),
    differ(
        IPV6,
        "tcp ask create_connection 'dual'",
        "<dual> 9001 peer-0 hello",
        "<dual-4> 9001 peer-0 hello",
    ),
    differ(
        IPV6,
        "tcp fails in the cluster, *IPv6*",
        "ECONNREFUSED",
        "EADDRNOTAVAIL",
    ),
    differ(
        IPV6,
        "tcp fails in the cluster, *IPv6*",
        "EHOSTUNREACH",
        "EADDRNOTAVAIL",
    ),
    differ(
        IPV6,
        "tcp fails here, *, ::1",
        "ECONNREFUSED",
        "EADDRNOTAVAIL",
    ),
    differ(
        IPV6,
        "tcp fails here, create_connection, localhost",
        "*",
        "EADDRNOTAVAIL",
    ),
    differ(IPV6, "udp * 'six*'", "*", "EADDRNOTAVAIL"),
    differ(IPV6, "udp * '<six*'", "*", "EADDRNOTAVAIL"),
    differ(
        IPV6,
        "udp fails in the cluster, *IPv6*",
        "*",
        "EADDRNOTAVAIL",
    ),
    differ(IPV6, "udp fails here, *, ::1", "*", "EADDRNOTAVAIL"),
];
