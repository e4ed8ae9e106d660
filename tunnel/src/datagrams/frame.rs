//! What is said of a socket: a header of 25 bytes (kind, socket, address as IPv6, port, length; integers in big endian), and the
//! payload.

use crate::stream::{Reader, Reset};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Largest payload, in bytes. UDP's own limit is less (RFC 768: its length has two bytes and counts the header).
pub const MAX_PAYLOAD: usize = u16::MAX as usize;

const HEADER: usize = 1 + 4 + 16 + 2 + 2;

/// What a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A datagram to or from the peer. The client's first one of a socket makes the socket.
    Datagram,
    /// From the pod: the peer was not reached. The payload is the code of the ICMP message "destination unreachable" of the peer's family
    /// (RFC 792, RFC 4443 3.1).
    Unreachable,
    /// From the client: the socket is not needed any more.
    Close,
}

const KINDS: [(u8, Kind); 3] = [
    (1, Kind::Datagram),
    (2, Kind::Unreachable),
    (3, Kind::Close),
];

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it says.
    pub kind: Kind,
    /// The socket: a number that the client chooses, once in its run.
    pub socket: u32,
    /// The other end of the datagram.
    pub peer: SocketAddr,
    /// At most [`MAX_PAYLOAD`].
    pub payload: Bytes,
}

impl Frame {
    /// How many bytes a frame with this payload has.
    pub(super) fn length(payload: &[u8]) -> usize {
        HEADER + payload.len()
    }

    /// Appends it to `wire`; what does not fit into a frame is left out.
    pub(super) fn encode(
        wire: &mut BytesMut,
        kind: Kind,
        socket: u32,
        peer: SocketAddr,
        payload: &[u8],
    ) {
        let Ok(length) = u16::try_from(payload.len()) else {
            return;
        };
        let code = KINDS.iter().find(|(_, known)| *known == kind);
        wire.put_u8(code.map_or(0, |(code, _)| *code));
        wire.put_u32(socket);
        wire.put_slice(&v6(peer.ip()).octets());
        wire.put_u16(peer.port());
        wire.put_u16(length);
        wire.put_slice(payload);
    }

    /// Splits the first whole frame off `wire`, of a kind that is known.
    pub fn split(wire: &mut BytesMut) -> Option<Frame> {
        loop {
            let (_, length) = wire.get(..HEADER)?.split_last_chunk()?;
            let length = usize::from(u16::from_be_bytes(*length));
            if wire.len() < HEADER + length {
                return None;
            }
            let code = wire.get_u8();
            let socket = wire.get_u32();
            let ip = IpAddr::from(Ipv6Addr::from(wire.get_u128())).to_canonical();
            let peer = SocketAddr::new(ip, wire.get_u16());
            wire.advance(2);
            let payload = wire.split_to(length).freeze();
            // Of a later version.
            let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == code) else {
                continue;
            };
            return Some(Frame {
                kind: *kind,
                socket,
                peer,
                payload,
            });
        }
    }
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// Takes frames out of the receiving direction of a stream.
pub struct FrameReader {
    reader: Box<dyn Reader>,
    wire: BytesMut,
}

impl FrameReader {
    /// Reads frames from `reader`.
    pub fn new(reader: Box<dyn Reader>) -> FrameReader {
        FrameReader {
            reader,
            wire: BytesMut::new(),
        }
    }

    /// The next frame; `None` at the end of the stream, wherever that is.
    ///
    /// Cancel-safe: a frame read in part is kept.
    ///
    /// # Errors
    /// [`Reset`] if the stream was.
    pub async fn next(&mut self) -> Result<Option<Frame>, Reset> {
        loop {
            if let Some(frame) = Frame::split(&mut self.wire) {
                return Ok(Some(frame));
            }
            match self.reader.read().await? {
                Some(bytes) => self.wire.extend_from_slice(&bytes),
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = Frame> {
        let ip = prop_oneof![
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 16]>().prop_map(|ip| IpAddr::from(ip).to_canonical()),
        ];
        let kind = prop::sample::select(KINDS.map(|(_, kind)| kind).to_vec());
        let payload = prop::collection::vec(any::<u8>(), 0..2000);
        (kind, any::<u32>(), ip, any::<u16>(), payload).prop_map(
            |(kind, socket, ip, port, payload)| Frame {
                kind,
                socket,
                peer: (ip, port).into(),
                payload: payload.into(),
            },
        )
    }

    fn encode(wire: &mut BytesMut, frame: &Frame) {
        Frame::encode(wire, frame.kind, frame.socket, frame.peer, &frame.payload);
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(sent in prop::collection::vec(frames(), 1..8), cut in 1usize..4000) {
            let mut all = BytesMut::new();
            sent.iter().for_each(|frame| encode(&mut all, frame));
            let (mut wire, mut received) = (BytesMut::new(), vec![]);
            for piece in all.chunks(cut) {
                wire.extend_from_slice(piece);
                received.extend(std::iter::from_fn(|| Frame::split(&mut wire)));
            }
            prop_assert_eq!(received, sent);
            prop_assert!(wire.is_empty());
        }

        #[test]
        fn anything_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
            let mut wire = BytesMut::from(&bytes[..]);
            while Frame::split(&mut wire).is_some() {}
            prop_assert!(wire.len() <= bytes.len());
        }
    }

    #[test]
    fn a_frame_on_the_wire() {
        let mut wire = BytesMut::new();
        let peer = "198.18.0.1:53".parse().unwrap();
        Frame::encode(&mut wire, Kind::Datagram, 7, peer, b"hi");
        assert_eq!(
            wire[..],
            *b"\x01\0\0\0\x07\0\0\0\0\0\0\0\0\0\0\xff\xff\xc6\x12\0\x01\0\x35\0\x02hi"
        );
    }

    #[test]
    fn a_kind_that_is_not_known_is_passed_over() {
        let mut wire = BytesMut::new();
        let peer = "[fd00::1]:53".parse().unwrap();
        Frame::encode(&mut wire, Kind::Close, 1, peer, b"");
        wire[0] = 200;
        Frame::encode(&mut wire, Kind::Close, 2, peer, b"");
        assert_eq!(Frame::split(&mut wire).unwrap().socket, 2);
        assert_eq!(Frame::split(&mut wire), None);
    }

    #[test]
    fn what_is_too_long_is_left_out() {
        let mut wire = BytesMut::new();
        let peer = "198.18.0.1:53".parse().unwrap();
        Frame::encode(&mut wire, Kind::Datagram, 7, peer, &[0; MAX_PAYLOAD + 1]);
        assert!(wire.is_empty());
        Frame::encode(&mut wire, Kind::Datagram, 7, peer, &[0; MAX_PAYLOAD]);
        assert_eq!(wire.len(), Frame::length(&[0; MAX_PAYLOAD]));
    }
}
