//! DNS queries over one channel: any number under way, told apart by ids of our own.

use crate::pod::DnsError;
use bytes::{Bytes, BytesMut};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tunnel::frames::{self, FrameReader};
use tunnel::stream::{Stream, Writer};

/// Queries handed over and not yet sent.
const QUEUE: usize = 64;
/// An answer that takes longer is given up: the other end's own time-outs (two attempts of five seconds at each of
/// three nameservers, by default) have passed by then.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(35);

/// The subsystem "dns" of one connection.
#[derive(Debug)]
pub struct Dns {
    queries: mpsc::Sender<Bytes>,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    answers: HashMap<u16, oneshot::Sender<Bytes>>,
    last: u16,
    ended: bool,
}

/// Takes a query off the list, whether it was answered or given up.
struct Entry<'a> {
    dns: &'a Dns,
    id: u16,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        lock(&self.dns.waiting).answers.remove(&self.id);
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Dns {
    /// Speaks on `stream`; the two tasks end with it, and with the connection, which `ended` tells.
    pub fn new(stream: Stream, tracker: &TaskTracker, ended: &CancellationToken) -> Dns {
        let (queries, receiver) = mpsc::channel(QUEUE);
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let sending = send(stream.writer, receiver);
        tracker.spawn(ended.clone().run_until_cancelled_owned(sending));
        tracker.spawn(receive(FrameReader::new(stream.reader), waiting.clone()));
        Dns { queries, waiting }
    }

    /// Sends `query` and waits for its answer, which bears the query's own id.
    ///
    /// Cancel-safe: an answer that nobody waits for is dropped.
    ///
    /// # Errors
    /// See [`DnsError`].
    pub async fn ask(&self, query: Bytes) -> Result<Bytes, DnsError> {
        let (id, answer) = self.register().ok_or(DnsError::LinkDown)?;
        let _entry = Entry { dns: self, id };
        let (original, renamed) = with_id(&query, id).ok_or(DnsError::TimedOut)?;
        self.queries
            .send(renamed)
            .await
            .map_err(|_| DnsError::LinkDown)?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, answer)
            .await
            .map_err(|_| DnsError::TimedOut)?
            .map_err(|_| DnsError::LinkDown)?;
        let (_, answer) = with_id(&answer, original).ok_or(DnsError::TimedOut)?;
        Ok(answer)
    }

    /// A free id, and where its answer will come; `None` if the channel has ended or all ids are taken.
    fn register(&self) -> Option<(u16, oneshot::Receiver<Bytes>)> {
        let mut waiting = lock(&self.waiting);
        if waiting.ended || waiting.answers.len() > usize::from(u16::MAX) {
            return None;
        }
        let mut id = waiting.last;
        loop {
            id = id.wrapping_add(1);
            if !waiting.answers.contains_key(&id) {
                break;
            }
        }
        waiting.last = id;
        let (sender, receiver) = oneshot::channel();
        waiting.answers.insert(id, sender);
        Some((id, receiver))
    }
}

/// The message's id (RFC 1035 4.1.1: its first two bytes), and the message with another one.
fn with_id(message: &[u8], id: u16) -> Option<(u16, Bytes)> {
    let (original, rest) = message.split_first_chunk()?;
    let mut renamed = BytesMut::with_capacity(message.len());
    renamed.extend_from_slice(&id.to_be_bytes());
    renamed.extend_from_slice(rest);
    Some((u16::from_be_bytes(*original), renamed.freeze()))
}

async fn send(mut writer: Box<dyn Writer>, mut queries: mpsc::Receiver<Bytes>) {
    while let Some(query) = queries.recv().await {
        if frames::send(writer.as_mut(), &query).await.is_err() {
            return;
        }
    }
}

async fn receive(mut reader: FrameReader, waiting: Arc<Mutex<Waiting>>) {
    while let Ok(Some(message)) = reader.next().await {
        let Some((id, _)) = message.split_first_chunk() else {
            continue;
        };
        let sender = lock(&waiting).answers.remove(&u16::from_be_bytes(*id));
        if let Some(sender) = sender {
            // The one who asked may have given up.
            let _ = sender.send(message);
        }
    }
    let mut waiting = lock(&waiting);
    waiting.ended = true;
    waiting.answers.clear();
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, timeout};
    use tunnel::stream::memory;

    #[tokio::test]
    async fn answers_find_their_queries_in_any_order() {
        let (near, far) = memory::pair();
        let tracker = TaskTracker::new();
        let dns = Arc::new(Dns::new(near, &tracker, &CancellationToken::new()));
        let asked: Vec<_> = (0..3u8)
            .map(|n| {
                let dns = dns.clone();
                tokio::spawn(async move { dns.ask(Bytes::from(vec![7, 7, n])).await })
            })
            .collect();
        let (mut reader, mut writer) = (FrameReader::new(far.reader), far.writer);
        let mut queries = vec![];
        for _ in 0..3 {
            queries.push(reader.next().await.unwrap().unwrap());
        }
        for query in queries.iter().rev() {
            let mut answer = query.to_vec();
            answer.push(b'!');
            frames::send(writer.as_mut(), &answer).await.unwrap();
        }
        for (n, task) in asked.into_iter().enumerate() {
            let answer = task.await.unwrap().unwrap();
            assert_eq!(answer[..], [7, 7, n as u8, b'!']);
        }
    }

    #[tokio::test]
    async fn a_lost_link_ends_every_query() {
        let (near, far) = memory::pair();
        let dns = Arc::new(Dns::new(
            near,
            &TaskTracker::new(),
            &CancellationToken::new(),
        ));
        let asked = tokio::spawn({
            let dns = dns.clone();
            async move { dns.ask(Bytes::from_static(&[0, 0])).await }
        });
        let mut reader = FrameReader::new(far.reader);
        reader.next().await.unwrap();
        drop(far.writer);
        assert_eq!(asked.await.unwrap(), Err(DnsError::LinkDown));
        assert_eq!(
            dns.ask(Bytes::from_static(&[0, 0])).await,
            Err(DnsError::LinkDown)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_without_an_answer_is_given_up() {
        let (near, _far) = memory::pair();
        let dns = Dns::new(near, &TaskTracker::new(), &CancellationToken::new());
        let before = Instant::now();
        let asking = timeout(ANSWER_TIMEOUT * 60, dns.ask(Bytes::from_static(&[0, 0])));
        assert_eq!(asking.await, Ok(Err(DnsError::TimedOut)));
        assert_eq!(before.elapsed(), ANSWER_TIMEOUT);
        assert!(lock(&dns.waiting).answers.is_empty());
    }
}
