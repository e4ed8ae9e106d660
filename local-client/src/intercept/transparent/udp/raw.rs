//! The way back to the app (and of what is let go): datagrams from the very address that it has sent to, and the ICMP message that a router, or the peer, would have
//! sent.
//!
//! They are sent whole, with their IP header. A socket bound to the peer's address would do for datagrams, but not where the app itself is
//! bound to the same port on all addresses: no two sockets can be.

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Protocol numbers in an IP header.
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;
/// "Destination unreachable" (RFC 792, RFC 4443 3.1).
const V4_UNREACHABLE: u8 = 3;
const V6_UNREACHABLE: u8 = 1;
/// How far a packet may go: no way at all.
const TTL: u8 = 64;

/// Raw sockets, of which the protocol means that packets bring their headers (raw(7)).
pub(super) struct Raw {
    v4: Socket,
    /// `None` where IPv6 is off.
    v6: Option<Socket>,
}

impl Raw {
    /// # Errors
    /// What the kernel says: it takes the capability NET_RAW.
    pub(super) fn open() -> io::Result<Raw> {
        let open = |domain| {
            let socket = Socket::new(
                domain,
                Type::RAW,
                Some(Protocol::from(nix::libc::IPPROTO_RAW)),
            )?;
            socket.set_nonblocking(true)?;
            io::Result::Ok(socket)
        };
        Ok(Raw {
            v4: open(Domain::IPV4)?,
            v6: open(Domain::IPV6).ok(),
        })
    }

    /// Sends a datagram without waiting, whoever is at either address.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn datagram(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
    ) -> io::Result<()> {
        let datagram = udp(from, to, payload)?;
        self.send(from.ip(), to.ip(), UDP, datagram)
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
        let (protocol, kind) = match peer {
            SocketAddr::V4(_) => (ICMP, V4_UNREACHABLE),
            SocketAddr::V6(_) => (ICMP_V6, V6_UNREACHABLE),
        };
        let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
        // The begin of the datagram that it is about.
        let datagram = udp(app, peer, &[])?;
        message.extend(packet(app.ip(), peer.ip(), UDP, datagram)?);
        let sum = match (peer.ip(), app.ip()) {
            (IpAddr::V6(from), IpAddr::V6(to)) => pseudo_header(from, to, ICMP_V6, &message),
            _ => vec![],
        };
        let sum = checksum(&[&sum, &message]);
        put(&mut message, 2, sum);
        self.send(peer.ip(), app.ip(), protocol, message)
    }

    fn send(&self, from: IpAddr, to: IpAddr, protocol: u8, payload: Vec<u8>) -> io::Result<()> {
        let packet = packet(from, to, protocol, payload)?;
        // A raw socket takes no port.
        let (socket, to): (_, SockAddr) = match to {
            IpAddr::V4(to) => (Some(&self.v4), SocketAddrV4::new(to, 0).into()),
            IpAddr::V6(to) => (self.v6.as_ref(), SocketAddrV6::new(to, 0, 0, 0).into()),
        };
        let socket = socket.ok_or(io::ErrorKind::Unsupported)?;
        socket.send_to(&packet, &to).map(drop)
    }
}

/// A packet with its header (RFC 791 3.1, RFC 8200 3). The kernel adds the checksum of IPv4's.
fn packet(from: IpAddr, to: IpAddr, protocol: u8, payload: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut packet = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = length(20 + payload.len())?;
            let mut header = vec![0x45, 0];
            header.extend(length);
            header.extend([0, 0, 0, 0, TTL, protocol, 0, 0]);
            header.extend(Ipv4Addr::octets(&from));
            header.extend(Ipv4Addr::octets(&to));
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(length(payload.len())?);
            header.extend([protocol, TTL]);
            header.extend(Ipv6Addr::octets(&from));
            header.extend(Ipv6Addr::octets(&to));
            header
        }
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    packet.extend(payload);
    Ok(packet)
}

/// A datagram (RFC 768). IPv4 does without a checksum, IPv6 does not (RFC 8200 8.1).
fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> io::Result<Vec<u8>> {
    let mut datagram = Vec::with_capacity(8 + payload.len());
    datagram.extend(from.port().to_be_bytes());
    datagram.extend(to.port().to_be_bytes());
    datagram.extend(length(8 + payload.len())?);
    datagram.extend([0, 0]);
    datagram.extend(payload);
    if let (IpAddr::V6(from), IpAddr::V6(to)) = (from.ip(), to.ip()) {
        let sum = checksum(&[&pseudo_header(from, to, UDP, &datagram), &datagram]);
        // Zero would mean that there is none.
        put(&mut datagram, 6, if sum == 0 { 0xffff } else { sum });
    }
    Ok(datagram)
}

fn length(length: usize) -> io::Result<[u8; 2]> {
    let length = u16::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
    Ok(length.to_be_bytes())
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// What a checksum of IPv6 covers besides (RFC 8200 8.1).
fn pseudo_header(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut header = vec![];
    header.extend(from.octets());
    header.extend(to.octets());
    header.extend(length.to_be_bytes());
    header.extend([0, 0, 0, protocol]);
    header
}

/// The Internet checksum (RFC 1071) of parts of which all but the last have an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u64 = 0;
    for part in parts {
        let (words, rest) = part.as_chunks();
        sum += words
            .iter()
            .map(|word| u64::from(u16::from_be_bytes(*word)))
            .sum::<u64>();
        sum += rest.first().map_or(0, |byte| u64::from(*byte) << 8);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 1071 3, and an odd length.
    #[test]
    fn the_checksum() {
        assert_eq!(
            checksum(&[&[0, 1, 0xf2, 3], &[0xf4, 0xf5, 0xf6, 0xf7]]),
            !0xddf2
        );
        assert_eq!(checksum(&[&[0, 1, 2]]), !0x0201);
    }

    #[test]
    fn a_packet_of_version_4() {
        let (app, peer) = ("172.17.0.2:40000", "198.18.0.1:53");
        let (app, peer): (SocketAddr, SocketAddr) = (app.parse().unwrap(), peer.parse().unwrap());
        let datagram = udp(peer, app, b"hi").unwrap();
        assert_eq!(datagram, *b"\x00\x35\x9c\x40\x00\x0a\0\0hi");
        let packet = packet(peer.ip(), app.ip(), UDP, datagram).unwrap();
        assert_eq!(packet[..4], [0x45, 0, 0, 30]);
        assert_eq!(packet[8..12], [64, 17, 0, 0]);
        assert_eq!(packet[12..20], [198, 18, 0, 1, 172, 17, 0, 2]);
        let largest = vec![0; 65_507];
        assert!(udp(peer, app, &largest).is_ok());
    }

    #[test]
    fn a_datagram_of_version_6_has_a_checksum() {
        let (app, peer) = ("[fd00::2]:40000", "[fd00::1]:53");
        let (app, peer): (SocketAddr, SocketAddr) = (app.parse().unwrap(), peer.parse().unwrap());
        let datagram = udp(peer, app, b"odd").unwrap();
        let (IpAddr::V6(from), IpAddr::V6(to)) = (peer.ip(), app.ip()) else {
            unreachable!("both are");
        };
        // With its checksum, that is its sum.
        let header = pseudo_header(from, to, UDP, &datagram);
        assert_eq!(checksum(&[&header, &datagram]), 0);
        let packet = packet(peer.ip(), app.ip(), UDP, datagram).unwrap();
        assert_eq!(packet[..8], [0x60, 0, 0, 0, 0, 11, 17, 64]);
        assert_eq!(packet[8..24], from.octets());
    }
}
