//! Why a connection could not be opened in the pod, and how that is told over SSH.
//!
//! Between our own ends the reason is a private code (RFC 4254 5.1: 0xFE000000 to 0xFFFFFFFF), as russh gives its caller
//! nothing but the code. A plain SSH peer gets SSH_OPEN_CONNECT_FAILED with a text, which OpenSSH prints.

use crate::ident::Peer;
use russh::ChannelOpenFailure;
use thiserror::Error;

/// SSH_OPEN_CONNECT_FAILED (RFC 4254 5.1).
const CONNECT_FAILED: u32 = 2;
/// First of our private codes; the offsets are those of [`CODES`].
const PRIVATE: u32 = 0xFE00_0000;

/// Why a connection could not be opened in the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DialError {
    /// The target answered with a reset.
    #[error("connection refused")]
    Refused,
    /// There is no way to the target's network or host.
    #[error("host or network unreachable")]
    Unreachable,
    /// The target did not answer in time.
    #[error("timed out")]
    TimedOut,
    /// The pod's resolver knows no address for the name.
    #[error("unknown name")]
    UnknownName,
    /// The pod's resolver did not answer, or answered with a failure.
    #[error("the pod's nameserver failed")]
    Nameserver,
    /// The target is a listener of the tunnel itself.
    #[error("the target is the proxy itself")]
    Loop,
    /// One of the ends, this one or the other, has no sockets or memory left for it.
    #[error("no sockets or memory left for another connection")]
    Resources,
    /// The other end does not know the stream that was to be taken up again.
    #[error("the stream was forgotten")]
    Forgotten,
    /// Anything else.
    #[error("connect failed")]
    Other,
    /// There is no connection to the pod at this moment; told by the client alone, never over the wire.
    #[error("the link to the pod is down")]
    LinkDown,
}

/// The reasons that travel, in the order of their private codes.
const CODES: [DialError; 9] = [
    DialError::Other,
    DialError::Refused,
    DialError::Unreachable,
    DialError::TimedOut,
    DialError::UnknownName,
    DialError::Nameserver,
    DialError::Loop,
    DialError::Resources,
    DialError::Forgotten,
];

impl DialError {
    /// The reason as the channel-open failure that `peer` understands best.
    pub fn to_failure(self, peer: Peer) -> ChannelOpenFailure {
        let code = match peer {
            Peer::Plain => CONNECT_FAILED,
            Peer::Ours { .. } => {
                let offset = CODES.iter().position(|code| *code == self).unwrap_or(0);
                PRIVATE + u32::try_from(offset).unwrap_or(0)
            }
        };
        ChannelOpenFailure::Other {
            code,
            reason: self.to_string(),
        }
    }

    /// The reason told by a channel-open failure; an unknown code is [`DialError::Other`].
    pub fn from_failure(failure: &ChannelOpenFailure) -> DialError {
        failure
            .code()
            .checked_sub(PRIVATE)
            .and_then(|offset| CODES.get(usize::try_from(offset).ok()?))
            .copied()
            .unwrap_or(DialError::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_way_between_our_ends() {
        for reason in CODES {
            let failure = reason.to_failure(Peer::Ours {
                version: 1,
                run: None,
            });
            assert_eq!(DialError::from_failure(&failure), reason);
        }
    }

    #[test]
    fn a_plain_peer_gets_the_standard_code_and_a_text() {
        let failure = DialError::Refused.to_failure(Peer::Plain);
        assert_eq!(
            (failure.code(), failure.description()),
            (2, "connection refused")
        );
        assert_eq!(DialError::from_failure(&failure), DialError::Other);
    }
}
