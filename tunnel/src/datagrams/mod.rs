//! The subsystem "udp" between our own ends: the client's sockets in the pod, and their datagrams. Any number of sockets share one
//! stream. What finds no room on the way is dropped, as on any network.

mod frame;
mod outbox;
mod recent;

pub use frame::{Frame, FrameReader, Kind, MAX_PAYLOAD};
pub use outbox::Outbox;
pub use recent::Recent;

use std::time::Duration;

/// The subsystem's name.
pub const SUBSYSTEM: &str = "udp";

/// A socket that nothing has been sent from or to for so long is closed, by either end: the kernel's own for a flow of datagrams
/// both ways is 120 s (nf_conntrack_udp_timeout_stream).
pub const IDLE_TIMEOUT: Duration = Duration::from_mins(3);

/// The number of the socket that listens on a port of the client's choice ([`crate::claims`]). Other numbers are lower.
pub fn listening(port: u16) -> u32 {
    LISTENING | u32::from(port)
}

/// The port on which a socket of that number listens.
pub fn port(socket: u32) -> Option<u16> {
    (socket & LISTENING != 0).then(|| u16::try_from(socket & !LISTENING).ok())?
}

const LISTENING: u32 = 1 << 31;

/// Sockets of one client at a time, but for those that listen. One more takes the place of the one that has been idle for longest.
pub const SOCKETS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_socket_tells_its_port() {
        for number in [1, 53, u16::MAX] {
            assert_eq!(port(listening(number)), Some(number));
            assert_eq!(port(number.into()), None);
        }
        assert_eq!(listening(53), 0x8000_0035);
    }
}
