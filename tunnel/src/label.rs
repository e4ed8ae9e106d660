//! What our own ends say of a stream when they open a channel for it, in the field "originator IP address" (RFC 4254 7.2): after
//! the address and a space, `stream=ID leg=N received=N limit=N`, and `resumed` where the stream is older than the channel.
//!
//! The field is a string that neither end has another use for, so no round trip is needed to tell it.

use crate::stream::Position;
use std::fmt;
use std::str::FromStr;

/// Names a stream among those of one client, on both ends. Random, so that the ends need not agree who counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamId(u128);

impl StreamId {
    /// A new one.
    pub fn random() -> StreamId {
        StreamId(rand::random())
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// Which stream.
    pub id: StreamId,
    /// How many channels were asked for before: requests on two connections may be seen in another order than they were made in.
    pub leg: u32,
    /// Where the opening end is.
    pub position: Position,
    /// Whether the other end must know the stream: one that it does not know has been forgotten.
    pub resumed: bool,
}

/// A field that carries no label: the other end is a plain SSH peer.
#[derive(Debug, PartialEq, Eq)]
pub struct NoLabel;

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { received, limit } = self.position;
        let (id, leg) = (self.id, self.leg);
        write!(f, "stream={id} leg={leg} received={received} limit={limit}")?;
        match self.resumed {
            true => f.write_str(" resumed"),
            false => Ok(()),
        }
    }
}

impl FromStr for Label {
    type Err = NoLabel;

    fn from_str(text: &str) -> Result<Label, NoLabel> {
        let mut words = text.split(' ');
        let mut value = |key: &str| {
            let word = words.next().ok_or(NoLabel)?;
            let value = word
                .strip_prefix(key)
                .and_then(|rest| rest.strip_prefix('='));
            value.ok_or(NoLabel)
        };
        let id = value("stream")?;
        let id = match id.len() {
            32 => u128::from_str_radix(id, 16).map_err(|_| NoLabel)?,
            _ => return Err(NoLabel),
        };
        let leg = value("leg")?.parse().map_err(|_| NoLabel)?;
        let received = value("received")?.parse().map_err(|_| NoLabel)?;
        let limit = value("limit")?.parse().map_err(|_| NoLabel)?;
        let resumed = match (words.next(), words.next()) {
            (None, _) => false,
            (Some("resumed"), None) => true,
            _ => return Err(NoLabel),
        };
        Ok(Label {
            id: StreamId(id),
            leg,
            position: Position { received, limit },
            resumed,
        })
    }
}

/// The field for `address`, with `label` after it.
pub fn join(address: &str, label: &Label) -> String {
    format!("{address} {label}")
}

/// The address of the field, and what is said of the stream.
pub fn split(field: &str) -> (&str, Option<Label>) {
    match field.split_once(' ') {
        Some((address, label)) => (address, label.parse().ok()),
        None => (field, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_label_survives_the_wire(id in any::<u128>(), leg in any::<u32>(), received in any::<u64>(), limit in any::<u64>(), resumed in any::<bool>()) {
            let label = Label { id: StreamId(id), leg, position: Position { received, limit }, resumed };
            let field = join("2001:db8::1", &label);
            prop_assert_eq!(split(&field), ("2001:db8::1", Some(label)));
        }

        #[test]
        fn any_text_is_survived(text in ".{0,80}") {
            let (address, _) = split(&text);
            prop_assert!(text.starts_with(address));
        }
    }

    #[test]
    fn a_plain_peer_has_no_label() {
        for field in [
            "",
            "127.0.0.1",
            "127.0.0.1 ",
            "a stream=1 leg=0 received=0 limit=0",
            "a stream=00000000000000000000000000000001 leg=0 received=0",
            "a stream=00000000000000000000000000000001 leg=0 received=-1 limit=0",
            "a stream=00000000000000000000000000000001 leg=0 received=0 limit=0 more",
            "a stream=00000000000000000000000000000001 leg=0 received=0 limit=0 resumed more",
        ] {
            assert_eq!(split(field).1, None, "{field}");
        }
    }
}
