//! A channel that is a stream of its own: with a plain SSH peer, and for the subsystems between our own ends.
//!
//! EOF is the half-close of SSH (RFC 4254 5.3). SSH knows no reset: it is a CLOSE without an EOF.

use crate::leg::{self, Message, Outcome};
use crate::link::Link;
use crate::record::Record;
use crate::stream::Stream;
use crate::stream::shared::Shared;
use russh::Channel;

/// Makes a stream of an open, confirmed channel. It ends with the channel.
pub fn stream<M: Message>(channel: Channel<M>, link: &Link) -> Stream {
    let shared = Shared::without_credit(link.pool.clone());
    let stream = shared.stream();
    let link = link.clone();
    link.tracker.clone().spawn(async move {
        if leg::run(&shared, channel, &link).await == Outcome::Lost {
            shared.lose();
        }
    });
    stream
}

/// To be awaited between the confirmation of a channel that the other end, one of ours, has opened and the first byte sent on it.
///
/// russh empties its queue of replies before it takes a message, but a reply and a message that come in between are seen in
/// the wrong order, and what is sent on an unconfirmed channel is lost. So the first message is one that may be.
pub(crate) async fn settle<M: Message>(channel: &Channel<M>) {
    let (code, payload) = Record::Nothing.encode();
    // An error means that the connection has ended.
    let _ = channel.extended_data_bytes(code, payload).await;
}
