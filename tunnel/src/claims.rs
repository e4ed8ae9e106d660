//! Who holds which port of the pod: the subsystem "claims" answers with one [`Report`] and ends. A refused
//! tcpip-forward carries no reason (RFC 4254 4), so a client that was refused asks here.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The subsystem's name.
pub const SUBSYSTEM: &str = "claims";

/// The address of a tcpip-forward request between our own ends that is for UDP, of which SSH knows nothing (RFC 4254 7.1). What comes to such
/// a port belongs to the socket [`crate::datagrams::listening`].
pub const UDP: &str = "udp";

/// A port on all addresses of the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// For connections.
    Tcp(u16),
    /// For datagrams.
    Udp(u16),
}

impl Port {
    /// The number.
    pub fn number(self) -> u16 {
        match self {
            Port::Tcp(number) | Port::Udp(number) => number,
        }
    }

    /// The number, if it is for connections.
    pub fn tcp(self) -> Option<u16> {
        matches!(self, Port::Tcp(_)).then(|| self.number())
    }

    /// The address of the request for it: empty for all of the pod's.
    pub fn address(self) -> &'static str {
        match self {
            Port::Tcp(_) => "",
            Port::Udp(_) => UDP,
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Port::Tcp(number) => write!(f, "{number}"),
            Port::Udp(number) => write!(f, "{number}/udp"),
        }
    }
}

/// The answer of the subsystem.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Every port that is held, by whomever.
    pub claims: Vec<Claim>,
    /// What the asking connection was refused, the latest refusal of each port.
    pub refusals: Vec<Refusal>,
}

/// A port that a client could not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The address as requested.
    pub address: String,
    /// The port.
    pub port: u16,
    /// Why.
    pub reason: RefusalReason,
}

/// Why a client could not have a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalReason {
    /// Another client holds it; [`Report::claims`] says who.
    Held,
    /// Another process of the pod listens on it.
    InUse,
    /// The container may not listen on so low a port.
    Permission,
    /// The pod is about to end.
    Ending,
    /// Anything else, in words.
    Other(String),
}

/// A port of the pod that a client listens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The address as requested: empty for all of the pod's, [`UDP`] for a port of UDP on all of them.
    pub address: String,
    /// The port.
    pub port: u16,
    /// The holder's key: its SHA-256 fingerprint, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// The comment of the holder's key, which says who it is to people.
    pub comment: String,
    /// When the claim was made, in seconds since 1970 (UTC).
    pub since: u64,
    /// Whether the holder is the one who asks.
    pub yours: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_all_its_forms() {
        let (tcp, udp) = (Port::Tcp(8080), Port::Udp(53));
        assert_eq!((tcp.number(), udp.number()), (8080, 53));
        assert_eq!((tcp.tcp(), udp.tcp()), (Some(8080), None));
        assert_eq!((tcp.address(), udp.address()), ("", UDP));
        assert_eq!(format!("{tcp} {udp}"), "8080 53/udp");
    }
}
