//! What the messages of a port-forward mean: `v4.channel.k8s.io` and `v5.channel.k8s.io` for one port. A message is the
//! number of a channel and bytes for it; the first bytes that arrive on a channel are the number of the port.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Bytes of data that leave in one message: the API server and the node handle messages one by one, so that small ones
/// cost throughput, and large ones make what follows wait.
pub(super) const PAYLOAD_LIMIT: usize = tunnel::carrier::WRITE;

/// The pod's bytes.
const DATA: u8 = 0;
/// Why the node cannot connect, or lost the connection.
const ERROR: u8 = 1;
/// Since v5: the channel whose number follows ends.
const CLOSE: u8 = 255;

/// What a message says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Nothing that concerns the bytes of the pod.
    Nothing,
    /// Bytes of the pod.
    Data(Bytes),
    /// The node's words for why nothing more will come.
    Failure(String),
    /// Nothing more will come.
    End,
}

/// A message that no API server sends.
#[derive(Debug, PartialEq, Eq, Error)]
pub(super) enum Garbage {
    #[error("an empty message")]
    Empty,
    #[error("a message of channel {0}, which does not exist")]
    Channel(u8),
    #[error("{0} bytes where channel {1} should tell its port")]
    Length(usize, u8),
    #[error("port {told} on channel {channel} instead of port {expected}")]
    Port {
        told: u16,
        channel: u8,
        expected: u16,
    },
}

/// Reads the messages of the API server in their order.
#[derive(Debug)]
pub(super) struct Incoming {
    port: u16,
    /// Whether channels can be ended (v5).
    ends_channels: bool,
    data_begun: bool,
    error_begun: bool,
}

impl Incoming {
    /// For the forward of `port`; `ends_channels` since v5.
    pub(super) fn new(port: u16, ends_channels: bool) -> Incoming {
        Incoming {
            port,
            ends_channels,
            data_begun: false,
            error_begun: false,
        }
    }

    /// # Errors
    /// [`Garbage`], after which nothing can be trusted.
    pub(super) fn read(&mut self, mut message: Bytes) -> Result<Event, Garbage> {
        let channel = message.try_get_u8().map_err(|_| Garbage::Empty)?;
        let begun = match channel {
            DATA => &mut self.data_begun,
            ERROR => &mut self.error_begun,
            CLOSE if self.ends_channels => {
                return match *message {
                    [DATA] => Ok(Event::End),
                    // No error, then.
                    [ERROR] => Ok(Event::Nothing),
                    _ => Err(Garbage::Channel(CLOSE)),
                };
            }
            other => return Err(Garbage::Channel(other)),
        };
        if !*begun {
            let [low, high] = *message else {
                return Err(Garbage::Length(message.len(), channel));
            };
            let told = u16::from_le_bytes([low, high]);
            if told != self.port {
                return Err(Garbage::Port {
                    told,
                    channel,
                    expected: self.port,
                });
            }
            *begun = true;
            return Ok(Event::Nothing);
        }
        if channel == DATA {
            return Ok(match message.is_empty() {
                true => Event::Nothing,
                false => Event::Data(message),
            });
        }
        let text = String::from_utf8_lossy(&message).trim().to_owned();
        Ok(match text.is_empty() {
            true => Event::Nothing,
            false => Event::Failure(text),
        })
    }
}

/// The message that carries the beginning of `bytes` to the pod, and how many they are. Made in `memory`, which serves
/// again once the message is gone.
pub(super) fn data(memory: &mut BytesMut, bytes: &[u8]) -> (Bytes, usize) {
    let n = bytes.len().min(PAYLOAD_LIMIT);
    memory.reserve(1 + n);
    memory.put_u8(DATA);
    memory.put(bytes.take(n));
    (memory.split().freeze(), n)
}

/// The message that ends the bytes to the pod (v5).
pub(super) fn end_of_data() -> Bytes {
    Bytes::from_static(&[CLOSE, DATA])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What each of `messages` says in turn, for port 8022 (0x1f56).
    fn read(ends_channels: bool, messages: &[&[u8]]) -> Vec<Result<Event, Garbage>> {
        let mut incoming = Incoming::new(8022, ends_channels);
        let read = |message: &&[u8]| incoming.read(Bytes::copy_from_slice(message));
        messages.iter().map(read).collect()
    }

    fn bytes(bytes: &'static [u8]) -> Event {
        Event::Data(Bytes::from_static(bytes))
    }

    const PORTS: [&[u8]; 2] = [b"\x00\x56\x1f", b"\x01\x56\x1f"];

    #[test]
    fn the_port_comes_first_and_then_bytes() {
        let messages = [PORTS[0], b"\0\0\xff", PORTS[1], b"\0", PORTS[0]];
        let expected = [
            Event::Nothing,
            bytes(b"\0\xff"),
            Event::Nothing,
            Event::Nothing,
            bytes(b"\x56\x1f"),
        ];
        assert_eq!(read(false, &messages), expected.map(Ok));
    }

    #[test]
    fn the_error_channel_tells_why() {
        let messages = [PORTS[1], b"\x01", b"\x01 \n", b"\x01no \xff\n"];
        let failure = Event::Failure("no \u{fffd}".into());
        let expected = [Event::Nothing, Event::Nothing, Event::Nothing, failure];
        assert_eq!(read(false, &messages), expected.map(Ok));
    }

    #[test]
    fn a_channel_can_be_ended_since_v5() {
        let messages: [&[u8]; 4] = [b"\xff\x01", b"\xff\x00", b"\xff", b"\xff\x00\x00"];
        let unknown = || Err(Garbage::Channel(CLOSE));
        let expected = [Ok(Event::Nothing), Ok(Event::End), unknown(), unknown()];
        assert_eq!(read(true, &messages), expected);
        assert_eq!(read(false, &messages), [(); 4].map(|()| unknown()));
    }

    #[test]
    fn what_no_api_server_sends_is_told() {
        let cases: [(&[u8], &str); 6] = [
            (b"", "an empty message"),
            (b"\x02\x56\x1f", "a message of channel 2"),
            (b"\x00", "0 bytes where channel 0 should tell its port"),
            (b"\x00\x56", "1 bytes where channel 0"),
            (b"\x01\x56\x1f\x00", "3 bytes where channel 1"),
            // As if it were big-endian.
            (
                b"\x00\x1f\x56",
                "port 22047 on channel 0 instead of port 8022",
            ),
        ];
        for (message, part) in cases {
            let told = read(true, &[message]).remove(0).unwrap_err().to_string();
            assert!(told.contains(part), "{part:?} in {told:?}");
        }
    }

    proptest! {
        #[test]
        fn data_arrives_as_it_was_sent(port: u16, sent: Vec<Vec<u8>>) {
            let mut incoming = Incoming::new(port, true);
            let [low, high] = port.to_le_bytes();
            prop_assert_eq!(incoming.read(Bytes::from(vec![DATA, low, high])), Ok(Event::Nothing));
            let (mut memory, mut arrived) = (BytesMut::new(), vec![]);
            for bytes in &sent {
                let (message, n) = data(&mut memory, bytes);
                prop_assert_eq!(n, bytes.len());
                match incoming.read(message) {
                    Ok(Event::Data(bytes)) => arrived.extend(bytes),
                    other => prop_assert_eq!(other, Ok(Event::Nothing)),
                }
            }
            prop_assert_eq!(arrived, sent.concat());
        }

        /// Whatever arrives, in whatever order, is read without a panic, and bytes are handed on only after the port was told.
        #[test]
        fn any_message_is_read(
            ends_channels: bool,
            messages in prop::collection::vec(
                (prop::sample::select(vec![0, 1, 2, 255]), prop::collection::vec(0..3_u8, 0..4)), 0..8),
        ) {
            let mut incoming = Incoming::new(0x0201, ends_channels);
            let mut begun = [false; 2];
            for (channel, bytes) in messages {
                let message: Bytes = [&[channel], &bytes[..]].concat().into();
                let event = incoming.read(message);
                match (channel, bytes.as_slice()) {
                    (0 | 1, payload) if begun[usize::from(channel)] => match event {
                        Ok(Event::Data(bytes)) => prop_assert!(channel == 0 && bytes == payload),
                        Ok(Event::Failure(_)) => prop_assert_eq!(channel, 1),
                        other => prop_assert!(other == Ok(Event::Nothing) && payload.is_empty()),
                    },
                    (0 | 1, [1, 2]) => {
                        prop_assert_eq!(event, Ok(Event::Nothing));
                        begun[usize::from(channel)] = true;
                    }
                    (255, [0]) if ends_channels => prop_assert_eq!(event, Ok(Event::End)),
                    (255, [1]) if ends_channels => prop_assert_eq!(event, Ok(Event::Nothing)),
                    _ => prop_assert!(event.is_err()),
                }
            }
        }
    }
}
