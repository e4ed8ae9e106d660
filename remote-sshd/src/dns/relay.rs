//! The subsystem `dns`: the client's queries go to the pod's nameservers as they are, the answers come back as they are
//! ([`tunnel::frames`]), in the order of their arrival.

use super::message::Message;
use super::nameserver::ask;
use crate::pod::PodFiles;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::debug;
use tunnel::frames::{self, FrameReader};
use tunnel::stream::{Reset, Stream};

/// The subsystem's name.
pub const SUBSYSTEM: &str = "dns";

/// Queries of one connection that are under way at a time; further ones wait in the stream.
pub const QUERIES: usize = 256;

/// Serves one stream until the client ends it and all is answered. `queries` bounds what is under way.
///
/// # Errors
/// [`Reset`] if the stream was.
pub async fn serve(stream: Stream, files: PodFiles, queries: Arc<Semaphore>) -> Result<(), Reset> {
    let files = Arc::new(files);
    let mut reader = Some(FrameReader::new(stream.reader));
    let mut writer = stream.writer;
    let mut answers = JoinSet::new();
    loop {
        tokio::select! {
            next = next(reader.as_mut(), queries.clone()), if reader.is_some() => match next? {
                Some((permit, message)) => {
                    let files = files.clone();
                    answers.spawn(async move {
                        let answer = answer(&files, message).await;
                        drop(permit);
                        answer
                    });
                }
                None => reader = None,
            },
            Some(answer) = answers.join_next() => {
                if let Ok(answer) = answer {
                    frames::send(writer.as_mut(), answer.as_bytes()).await?;
                }
            }
            else => return writer.finish().await,
        }
    }
}

/// The next query, once it may be sent. Cancel-safe.
async fn next(
    reader: Option<&mut FrameReader>,
    queries: Arc<Semaphore>,
) -> Result<Option<(tokio::sync::OwnedSemaphorePermit, Message)>, Reset> {
    let Some(reader) = reader else {
        return Ok(None);
    };
    let permit = queries.acquire_owned().await.map_err(|_| Reset)?;
    loop {
        match reader.next().await? {
            Some(bytes) => match Message::new(bytes) {
                Some(message) => return Ok(Some((permit, message))),
                // Without an id there is nothing to answer with.
                None => debug!("a DNS message shorter than its header"),
            },
            None => return Ok(None),
        }
    }
}

async fn answer(files: &PodFiles, query: Message) -> Message {
    ask(&files.resolv_conf(), &query)
        .await
        .unwrap_or_else(|error| {
            debug!(%error, "dns");
            query.failure()
        })
}
