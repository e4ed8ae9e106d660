//! The subsystem "arrivals" between our own ends: each tells the other how much of its transport has arrived, which bounds what is
//! under way ([`crate::flight`]). As it lives as long as the connection is wanted, it also says who does not come back: the client by
//! its orderly end, the server by an exit signal (RFC 4254 6.10), after which its streams may finish.
//!
//! A report is the number of bytes of ciphertext received so far (8 bytes, big endian): absolute, so that one may stand for many.

use crate::gate::Gate;
use crate::leg::Message;
use crate::link::Link;
use bytes::{Buf, Bytes, BytesMut};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Error};
use tokio_util::sync::CancellationToken;

/// The subsystem's name.
pub const SUBSYSTEM: &str = "arrivals";

/// Has the end of the subsystem said by the one who leaves.
#[derive(Debug, Clone, Default)]
pub struct Farewell {
    wanted: CancellationToken,
    said: CancellationToken,
}

impl Farewell {
    /// Says that this end does not come back; returns when that is on its way, or nobody is left to hear it.
    pub async fn say(&self) {
        self.wanted.cancel();
        self.said.cancelled().await;
    }
}

/// Reports, and takes reports, on the connection of `link`, until the channel ends, or farewell was said.
pub async fn run<M: Message>(channel: Channel<M>, link: Link, farewell: Farewell) {
    let _said = farewell.said.drop_guard();
    let (mut reads, writes) = channel.split();
    tokio::select! {
        biased;
        () = hear(&mut reads, &link) => {}
        () = farewell.wanted.cancelled() => {
            // An error means that the connection has ended.
            let _ = writes.eof().await;
        }
        _ = tell(&writes, &link.gate) => {}
        () = link.gate.ended() => {}
    }
}

/// Not through the gate: what waits there may wait for just this report.
async fn tell<M: Message>(writes: &ChannelWriteHalf<M>, gate: &Gate) -> Result<(), Error> {
    loop {
        let total = gate.arrivals().await;
        writes
            .data_bytes(Bytes::copy_from_slice(&total.to_be_bytes()))
            .await?;
    }
}

async fn hear(reads: &mut ChannelReadHalf, link: &Link) {
    let mut buffer = BytesMut::new();
    loop {
        match reads.wait().await {
            Some(ChannelMsg::Data { data }) => {
                if let Some(total) = latest(&mut buffer, &data) {
                    link.gate.arrived(total);
                }
            }
            Some(ChannelMsg::ExitSignal { .. }) => link.left.cancel(),
            Some(ChannelMsg::Eof) => return link.left.cancel(),
            Some(ChannelMsg::Close) | None => return,
            Some(_) => {}
        }
    }
}

/// The last whole report of what has come; the begin of another one stays in `buffer`.
fn latest(buffer: &mut BytesMut, data: &[u8]) -> Option<u64> {
    buffer.extend_from_slice(data);
    let mut total = None;
    while buffer.len() >= 8 {
        total = Some(buffer.get_u64());
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_last_report_counts_however_they_are_cut(totals in prop::collection::vec(any::<u64>(), 1..20), cut in 1usize..20) {
            let wire: Vec<u8> = totals.iter().flat_map(|total| total.to_be_bytes()).collect();
            let mut buffer = BytesMut::new();
            let last = wire.chunks(cut).filter_map(|piece| latest(&mut buffer, piece)).last();
            prop_assert_eq!(last, totals.last().copied());
            prop_assert!(buffer.is_empty());
        }
    }
}
