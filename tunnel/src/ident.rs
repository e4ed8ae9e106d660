//! Who is at the other end, and which version it speaks, told by the SSH identification string
//! (`SSH-protoversion-softwareversion SP comments`, RFC 4253 4.2): no round trip is needed to know it.

use russh::SshId;

/// The version of what our two ends say to each other beyond plain SSH: the subsystems, the records on a stream,
/// the private failure codes. Raised by every incompatible change.
pub const WIRE_VERSION: u32 = 2;

/// The word that announces [`WIRE_VERSION`] in the comments of the identification string, ...
const VERSION: &str = "telepresence=";
/// ... and the one that names the client's run.
const RUN: &str = "run=";

/// Names one run of the client: the streams of one are not another one's, though both may use the same key. No secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RunId(u64);

impl RunId {
    /// A new one.
    pub fn random() -> RunId {
        RunId(rand::random())
    }
}

/// The other end of an SSH connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// One of ours.
    Ours {
        /// The wire version it speaks.
        version: u32,
        /// Of a client, its run.
        run: Option<RunId>,
    },
    /// Any other SSH implementation, which gets plain SSH.
    Plain,
}

impl Peer {
    /// Reads the identification string of the other end; what cannot be read is a plain SSH peer.
    pub fn parse(identification: &[u8]) -> Peer {
        let line = std::str::from_utf8(identification).unwrap_or_default();
        let comments = || line.split_ascii_whitespace().skip(1);
        let version = comments().find_map(|word| word.strip_prefix(VERSION)?.parse().ok());
        let run = comments().find_map(|word| word.strip_prefix(RUN)?.parse().ok());
        match version {
            Some(version) => Peer::Ours {
                version,
                run: run.map(RunId),
            },
            None => Peer::Plain,
        }
    }

    /// Whether the other end understands the records on a stream.
    pub fn is_ours(self) -> bool {
        matches!(self, Peer::Ours { .. })
    }
}

/// The identification string of one of our programs, `name` being the software's; a client's tells its run.
pub fn identification(name: &str, run: Option<RunId>) -> SshId {
    let run = run.map_or_else(String::new, |RunId(run)| format!(" {RUN}{run}"));
    let version = env!("CARGO_PKG_VERSION");
    SshId::Standard(format!("SSH-2.0-{name}_{version} {VERSION}{WIRE_VERSION}{run}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_identification_is_recognised() {
        for run in [None, Some(RunId(u64::MAX))] {
            let SshId::Standard(line) = identification("remote-sshd", run) else {
                panic!("a standard identification");
            };
            let version = WIRE_VERSION;
            assert_eq!(Peer::parse(line.as_bytes()), Peer::Ours { version, run });
            assert!(line.len() <= 253, "RFC 4253 4.2: 255 with CR LF");
        }
    }

    #[test]
    fn anything_else_is_a_plain_peer() {
        for line in [
            "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u6",
            "SSH-2.0-telepresence=1",
            "SSH-2.0-x telepresence=",
            "SSH-2.0-x telepresence=-1",
            "",
            "\u{fffd}",
        ] {
            assert_eq!(Peer::parse(line.as_bytes()), Peer::Plain, "{line}");
        }
    }
}
