//! The subsystem `dns`: the client's queries go to the pod's nameservers as they are, the answers come back as they are
//! ([`tunnel::frames`]), in the order of their arrival.

use super::message::Message;
use super::nameserver::ask;
use crate::pod::PodFiles;
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tracing::debug;
use tunnel::frames::{self, FrameReader};
use tunnel::stream::{Reset, Stream, Writer};

/// The subsystem's name.
pub const SUBSYSTEM: &str = "dns";

/// Queries of one connection that are under way at a time; further ones wait.
pub const QUERIES: usize = 256;

/// Queries of one stream that are under way or wait; further ones are dropped, as a busy nameserver does.
const WAITING: usize = 1024;

/// Serves one stream until the client ends it and all is answered. `queries` bounds what is under way.
///
/// Reading never waits for anything but the stream: russh holds up the whole connection for a stream that is not read, so
/// that an answer might wait for its own queries.
///
/// # Errors
/// [`Reset`] if the stream was.
pub async fn serve(stream: Stream, files: PodFiles, queries: Arc<Semaphore>) -> Result<(), Reset> {
    let (sender, receiver) = mpsc::channel(QUERIES);
    let reader = FrameReader::new(stream.reader);
    let reading = read(reader, sender, Arc::new(files), queries);
    tokio::try_join!(reading, write(stream.writer, receiver)).map(drop)
}

async fn read(
    mut reader: FrameReader,
    sender: mpsc::Sender<Message>,
    files: Arc<PodFiles>,
    queries: Arc<Semaphore>,
) -> Result<(), Reset> {
    let mut tasks = JoinSet::new();
    loop {
        let bytes = tokio::select! {
            next = reader.next() => match next? {
                Some(bytes) => bytes,
                None => break,
            },
            Some(_) = tasks.join_next() => continue,
        };
        match Message::new(bytes) {
            Some(_) if tasks.len() >= WAITING => debug!("too many DNS queries: one was dropped"),
            Some(query) => {
                let (sender, files, queries) = (sender.clone(), files.clone(), queries.clone());
                tasks.spawn(async move {
                    // The semaphore is never closed; the stream may have been reset.
                    let _turn = queries.acquire_owned().await;
                    let _ = sender.send(answer(&files, query).await).await;
                });
            }
            // Without an id there is nothing to answer with.
            None => debug!("a DNS message shorter than its header"),
        }
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

async fn write(
    mut writer: Box<dyn Writer>,
    mut answers: mpsc::Receiver<Message>,
) -> Result<(), Reset> {
    while let Some(answer) = answers.recv().await {
        frames::send(writer.as_mut(), answer.as_bytes()).await?;
    }
    writer.finish().await
}

async fn answer(files: &PodFiles, query: Message) -> Message {
    ask(&files.resolv_conf(), &query)
        .await
        .unwrap_or_else(|error| {
            debug!(%error, "dns");
            query.failure()
        })
}
