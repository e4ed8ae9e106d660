//! Who holds which port of the pod: the subsystem "claims" answers with one [`Report`] and ends. A refused
//! tcpip-forward carries no reason (RFC 4254 4), so a client that was refused asks here.

use serde::{Deserialize, Serialize};

/// The subsystem's name.
pub const SUBSYSTEM: &str = "claims";

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
    /// The TCP port.
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
    /// The address as requested: empty for all of the pod's.
    pub address: String,
    /// The TCP port.
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
