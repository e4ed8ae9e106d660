//! The promises that the tests must show. An id stands at the beginning of the name of each test that shows it.

/// An id, and the promise in a line.
pub type Scenario = (&'static str, &'static str);

/// What this release promises.
pub const CLAIMED: &[Scenario] = &[
    ("S1", "The command lines of the README work as printed"),
    (
        "S2",
        "A target that does not exist, is not ours or does not run is one clear error, or is waited for with the reason",
    ),
    (
        "S3",
        "A kubeconfig that does not work in a container is one clear error with the remedy",
    ),
    (
        "S5",
        "The rights that deploy/ grants are enough, and no more",
    ),
    (
        "S6",
        "Ready means ready: the first connection after it succeeds",
    ),
    (
        "O1",
        "A Service is reached by each of its names, at the port that the pod would use",
    ),
    ("O2", "A Service is reached by its environment variables"),
    (
        "O3",
        "Two hosts on one port, thirty Services, and a Service with several ports are told apart",
    ),
    (
        "O4",
        "A Service that is created, changed or deleted after the start is seen as it is",
    ),
    (
        "O5",
        "Pods by name and address, Services without an address, and aliases are reached (transparent mode)",
    ),
    (
        "O6",
        "The cloud's database is reached by its name, for queries and for bulk",
    ),
    (
        "O7",
        "A server that speaks first is heard, on the first connection of a session",
    ),
    (
        "O8",
        "Each direction of a connection ends on its own, and any amount may follow in the other",
    ),
    (
        "O9",
        "What cannot be reached is an error at once, never an empty answer, and the log tells why",
    ),
    ("O10", "A target that does not answer holds up nothing else"),
    (
        "O11",
        "A reader that stops holds up nothing else, and memory stays bounded",
    ),
    (
        "O12",
        "A gibibyte through one connection arrives byte for byte, while another stays interactive",
    ),
    (
        "O13",
        "A thousand connections at once, and thousands of short ones, leave nothing behind",
    ),
    (
        "O14",
        "Datagrams of any size reach any peer and their answers the right socket; a peer that does not listen is the error that it would be in the pod (transparent mode)",
    ),
    (
        "O15",
        "Targets of IPv6 are reached, and those of IPv4 by their mapped addresses (transparent mode)",
    ),
    (
        "O16",
        "The cluster's API server is reached (transparent mode)",
    ),
    (
        "O17",
        "SOCKS5 reaches names and addresses of the pod, for connections and for datagrams",
    ),
    (
        "O18",
        "The proxy itself is refused as a target, and a connection to the code's own port in the pod comes to the code once",
    ),
    (
        "D1",
        "DNS answers are those of the pod, down to NXDOMAIN and NODATA",
    ),
    (
        "D2",
        "The search list, ndots and the other options of the resolver are the pod's, and so are its host aliases",
    ),
    (
        "D3",
        "An answer too long for a datagram is cut there, and whole by TCP",
    ),
    (
        "D4",
        "Every resolver finds the cluster's names: glibc's, musl's, Go's own and those of Java, Node and Python",
    ),
    (
        "D5",
        "A nameserver that does not answer is passed over, and holds up nothing else",
    ),
    (
        "D6",
        "What surrounds the client's container is reached as before, by Docker's names, too",
    ),
    (
        "D7",
        "Two names of one address, and a name whose address changes, are reached",
    ),
    (
        "I1",
        "A pod reaches the code by the Service and by the pod's address, with connections and with datagrams",
    ),
    (
        "I2",
        "The code's port may differ from the pod's, and there may be many",
    ),
    (
        "I3",
        "The code may listen on 127.0.0.1, on ::1 or on all addresses; while it does not listen, callers are reset",
    ),
    ("I5", "The code may start after the client, and start anew"),
    (
        "I6",
        "200 requests at once, kept and upgraded connections, HTTP/2 and large bodies reach the code",
    ),
    (
        "E1",
        "The environment is the pod's, byte for byte; what a file cannot carry is left out and named",
    ),
    (
        "E2",
        "The environment is that of the right container, whatever its sources",
    ),
    (
        "E3",
        "docker run --env-file gives the code the values that it has in the pod",
    ),
    (
        "E4",
        "The environment files have the asked owner and mode 0600, and appear whole or not at all",
    ),
    (
        "E5",
        "Nothing of the client's own environment gets into the files",
    ),
    (
        "L1",
        "When the pod is replaced, names, connections and exposed ports work again without touching the code",
    ),
    (
        "L8",
        "Ended in any way, the client leaves nothing in the cluster; its ports are free at once, after docker kill in a second",
    ),
    ("X1", "Without an authorized key nobody is let in"),
    (
        "X2",
        "Other pods, Services and containers of the pod neither reach the proxy nor authorize keys for it",
    ),
    (
        "X4",
        "Shell, commands, SFTP, agent and X11 forwarding are refused politely",
    ),
    (
        "X6",
        "The proxy runs under any user, with a read-only root and no rights at all",
    ),
    (
        "M1",
        "OpenSSH forwards by -L, -R, -D and -W, multiplexed, and across new keys",
    ),
    (
        "M2",
        "ssh without a command is told in a sentence what this is",
    ),
    (
        "M3",
        "OpenSSH works beside a running session on the same pod",
    ),
    (
        "W1",
        "Where a program can tell that it is not in the pod, it is as the reference says",
    ),
];

/// The ids that a test's name begins with: `s1_x2_the_words` has `S1` and `X2`.
pub fn ids(test: &str) -> Vec<String> {
    let name = test.rsplit("::").next().unwrap_or(test);
    let is_id = |word: &&str| {
        let digits = word.strip_prefix(|c: char| c.is_ascii_lowercase());
        digits
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
    };
    name.split('_')
        .take_while(is_id)
        .map(str::to_ascii_uppercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_stand_at_the_beginning_of_the_name() {
        assert_eq!(ids("start::s1_x12_the_o1_words"), ["S1", "X12"]);
        assert!(ids("start::the_s1").is_empty() && ids("start::s_1").is_empty());
    }

    #[test]
    fn no_id_is_claimed_twice() {
        let ids: std::collections::BTreeSet<_> = CLAIMED.iter().map(|(id, _)| id).collect();
        assert_eq!(ids.len(), CLAIMED.len());
    }
}
