//! Who is at the other end, and which version it speaks, told by the SSH identification string
//! (`SSH-protoversion-softwareversion SP comments`, RFC 4253 4.2): no round trip is needed to know it.

use russh::SshId;

/// The version of what our two ends say to each other beyond plain SSH: the subsystems, the records on a stream,
/// the private failure codes. Raised by every incompatible change.
pub const WIRE_VERSION: u32 = 1;

/// The word that announces [`WIRE_VERSION`] in the comments of the identification string.
const KEY: &str = "telepresence=";

/// The other end of an SSH connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// One of ours, with the wire version it speaks.
    Ours(u32),
    /// Any other SSH implementation, which gets plain SSH.
    Plain,
}

impl Peer {
    /// Reads the identification string of the other end; what cannot be read is a plain SSH peer.
    pub fn parse(identification: &[u8]) -> Peer {
        std::str::from_utf8(identification)
            .ok()
            .and_then(|line| {
                line.split_ascii_whitespace()
                    .skip(1)
                    .find_map(|word| word.strip_prefix(KEY))
            })
            .and_then(|version| version.parse().ok())
            .map_or(Peer::Plain, Peer::Ours)
    }

    /// Whether the other end understands the records on a stream.
    pub fn is_ours(self) -> bool {
        matches!(self, Peer::Ours(_))
    }
}

/// The identification string of one of our programs, `name` being the software's.
pub fn identification(name: &str) -> SshId {
    SshId::Standard(
        format!(
            "SSH-2.0-{name}_{} {KEY}{WIRE_VERSION}",
            env!("CARGO_PKG_VERSION")
        )
        .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_identification_is_recognised() {
        let SshId::Standard(line) = identification("remote-sshd") else {
            panic!("a standard identification");
        };
        assert_eq!(Peer::parse(line.as_bytes()), Peer::Ours(WIRE_VERSION));
        assert!(line.len() <= 253, "RFC 4253 4.2: 255 with CR LF");
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
