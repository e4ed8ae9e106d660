//! A channel that is a stream of its own: with a plain SSH peer, and for the subsystems between our own ends.
//!
//! EOF is the half-close of SSH (RFC 4254 5.3). SSH knows no reset: it is a CLOSE without an EOF.

use crate::dial::DialError;
use crate::leg::{self, Message, Outcome};
use crate::link::Link;
use crate::opener::{OpenError, Opening, opened};
use crate::record::Record;
use crate::stream::Stream;
use crate::stream::shared::Shared;
use russh::Channel;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Makes a stream of an open, confirmed channel. It ends with the channel.
pub fn stream<M: Message>(channel: Channel<M>, link: &Link) -> Stream {
    carried(channel, link, leg(link))
}

/// Keeps a connection with a plain peer from being ended before its streams. A subsystem of our own ends lives as long as the connection,
/// and does not hold up its end.
fn leg(link: &Link) -> Option<TaskTrackerToken> {
    (!link.peer.is_ours()).then(|| link.legs.token())
}

fn carried<M: Message>(channel: Channel<M>, link: &Link, leg: Option<TaskTrackerToken>) -> Stream {
    let shared = Shared::without_credit(link.pool.clone());
    let stream = shared.stream();
    let link = link.clone();
    link.tracker.clone().spawn(async move {
        let _leg = leg;
        if leg::run(&shared, channel, &link).await == Outcome::Lost {
            shared.lose();
        }
    });
    stream
}

/// Opens a stream that is one channel of `link`, to a plain SSH peer, within `limit`.
///
/// # Errors
/// What the peer says; [`DialError::TimedOut`] if it says nothing in time, [`DialError::LinkDown`] if the connection ends before.
pub async fn open<M: Message>(
    link: &Link,
    opening: Opening<M>,
    limit: Duration,
) -> Result<Stream, DialError> {
    let leg = leg(link);
    match timeout(limit, opened(link, opening)).await {
        Ok(Ok(channel)) => Ok(carried(channel, link, leg)),
        Ok(Err(OpenError::Refused(failure))) => Err(DialError::from_failure(&failure)),
        Ok(Err(OpenError::Lost)) => Err(DialError::LinkDown),
        Err(_) => Err(DialError::TimedOut),
    }
}

/// To be awaited between the confirmation of a channel that the other end of `link`, a server or one of ours, has opened and the first byte sent
/// on it.
///
/// russh empties its queue of replies before it takes a message, but a reply and a message that come in between are seen in
/// the wrong order, and what is sent on an unconfirmed channel is lost. So the first message is one that may be: to a server that
/// is not ours, a request of a kind that means nothing on such a channel, without wanting an answer (RFC 4254 6.7).
pub async fn settle<M: Message>(channel: &Channel<M>, link: &Link) {
    // An error means that the connection has ended.
    let _ = match link.peer.is_ours() {
        true => {
            let (code, payload) = Record::Nothing.encode();
            channel.extended_data_bytes(code, payload).await
        }
        false => channel.window_change(0, 0, 0, 0).await,
    };
}
