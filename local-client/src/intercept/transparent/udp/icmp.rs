//! Telling the app's socket that a peer is not reached: by the ICMP message that a router, or the peer, would have sent.

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// "Destination unreachable" (RFC 792, RFC 4443 3.1).
const V4_UNREACHABLE: u8 = 3;
const V6_UNREACHABLE: u8 = 1;
/// The number of UDP in an IP header.
const UDP: u8 = 17;

/// Sockets to send such messages from, as far as they can be had: that takes the capability NET_RAW.
pub(super) struct Icmp {
    v4: Option<Socket>,
    v6: Option<Socket>,
}

impl Icmp {
    pub(super) fn open() -> Icmp {
        let open = |domain, protocol| {
            let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
            socket.set_nonblocking(true)?;
            io::Result::Ok(socket)
        };
        let v4 = open(Domain::IPV4, Protocol::ICMPV4);
        if let Err(error) = &v4 {
            tracing::warn!(
                "no raw socket ({error}): your code does not learn that nobody listens at a UDP port, unless the container is started with \
                 --cap-add NET_RAW"
            );
        }
        let v6 = open(Domain::IPV6, Protocol::ICMPV6);
        Icmp {
            v4: v4.ok(),
            v6: v6.ok(),
        }
    }

    /// Tells the socket at `app` that `peer` was not reached; `code` is that of the message.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn unreachable(
        &self,
        app: SocketAddr,
        peer: SocketAddr,
        code: u8,
    ) -> io::Result<()> {
        let (socket, message, to): (_, _, SockAddr) = match (app, peer) {
            (SocketAddr::V4(app), SocketAddr::V4(peer)) => (
                &self.v4,
                v4(app, peer, code),
                // A raw socket takes no port.
                SocketAddrV4::new(*app.ip(), 0).into(),
            ),
            (SocketAddr::V6(app), SocketAddr::V6(peer)) => (
                &self.v6,
                v6(app, peer, code),
                SocketAddrV6::new(*app.ip(), 0, 0, 0).into(),
            ),
            _ => return Ok(()),
        };
        match socket {
            Some(socket) => socket.send_to(&message, &to).map(drop),
            None => Ok(()),
        }
    }
}

/// The message with the begin of the datagram that it is about (RFC 792, RFC 791 3.1).
fn v4(app: SocketAddrV4, peer: SocketAddrV4, code: u8) -> Vec<u8> {
    let mut datagram = vec![0x45, 0];
    datagram.extend(28u16.to_be_bytes());
    datagram.extend([0, 0, 0, 0, 64, UDP, 0, 0]);
    datagram.extend(Ipv4Addr::octets(app.ip()));
    datagram.extend(Ipv4Addr::octets(peer.ip()));
    datagram.extend(udp(app.port(), peer.port()));
    let mut message = vec![V4_UNREACHABLE, code, 0, 0, 0, 0, 0, 0];
    message.extend(datagram);
    let sum = checksum(&message).to_be_bytes();
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&sum);
    }
    message
}

/// The same (RFC 4443 3.1, RFC 8200 3), without the checksum, which the kernel adds (RFC 3542 3.1).
fn v6(app: SocketAddrV6, peer: SocketAddrV6, code: u8) -> Vec<u8> {
    let mut message = vec![V6_UNREACHABLE, code, 0, 0, 0, 0, 0, 0];
    message.extend([0x60, 0, 0, 0, 0, 8, UDP, 64]);
    message.extend(Ipv6Addr::octets(app.ip()));
    message.extend(Ipv6Addr::octets(peer.ip()));
    message.extend(udp(app.port(), peer.port()));
    message
}

/// The header of a datagram without anything in it, and without a checksum (RFC 768).
fn udp(from: u16, to: u16) -> [u8; 8] {
    let ([a, b], [c, d]) = (from.to_be_bytes(), to.to_be_bytes());
    [a, b, c, d, 0, 8, 0, 0]
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let (words, _) = bytes.as_chunks();
    let sum: u32 = words
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_of_version_4() {
        let app = "172.17.0.2:40000".parse().unwrap();
        let message = v4(app, "198.18.0.1:53".parse().unwrap(), 3);
        assert_eq!(checksum(&message), 0, "with its checksum, that is its sum");
        assert_eq!(message[..2], [3, 3]);
        let header = &message[8..28];
        assert_eq!(header[..4], [0x45, 0, 0, 28]);
        assert_eq!(header[9], 17);
        assert_eq!(header[12..], [172, 17, 0, 2, 198, 18, 0, 1]);
        assert_eq!(message[28..], [0x9c, 0x40, 0, 53, 0, 8, 0, 0]);
    }

    #[test]
    fn the_message_of_version_6() {
        let app = "[fd00::2]:40000".parse().unwrap();
        let message = v6(app, "[fd00::1]:53".parse().unwrap(), 4);
        assert_eq!(message[..2], [1, 4]);
        assert_eq!(message[8..16], [0x60, 0, 0, 0, 0, 8, 17, 64]);
        assert_eq!(message[16..32], app.ip().octets());
        assert_eq!(message[48..], [0x9c, 0x40, 0, 53, 0, 8, 0, 0]);
    }

    /// The example of RFC 1071 3.
    #[test]
    fn the_checksum() {
        assert_eq!(checksum(&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }
}
