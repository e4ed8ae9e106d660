//! A pair of streams within one process, for tests of what sees only [`Stream`].

use super::{Reader, Reset, Stream, Writer};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::VecDeque;
use tokio::sync::mpsc;

/// Messages either direction holds before its writer waits.
const QUEUE: usize = 16;

enum Event {
    Data(Bytes),
    Fin,
}

struct MemoryReader {
    events: mpsc::Receiver<Event>,
    /// Came while somebody waited for the end of it all.
    ahead: VecDeque<Event>,
    /// The end of the direction came.
    ended: bool,
}
struct MemoryWriter(Option<mpsc::Sender<Event>>);

/// Two streams, each the other's far side.
pub fn pair() -> (Stream, Stream) {
    let (a_send, a_receive) = mpsc::channel(QUEUE);
    let (b_send, b_receive) = mpsc::channel(QUEUE);
    let stream = |send, receive| Stream {
        reader: Box::new(MemoryReader {
            events: receive,
            ahead: VecDeque::new(),
            ended: false,
        }),
        writer: Box::new(MemoryWriter(Some(send))),
    };
    (stream(a_send, b_receive), stream(b_send, a_receive))
}

#[async_trait]
impl Reader for MemoryReader {
    async fn read(&mut self) -> Result<Option<Bytes>, Reset> {
        let event = match self.ahead.pop_front() {
            Some(event) => Some(event),
            None => self.events.recv().await,
        };
        self.ended |= matches!(event, Some(Event::Fin));
        match event {
            Some(Event::Data(bytes)) => Ok(Some(bytes)),
            Some(Event::Fin) => Ok(None),
            None => Err(Reset),
        }
    }

    async fn lost(&mut self) {
        while let Some(event) = self.events.recv().await {
            self.ended |= matches!(event, Event::Fin);
            self.ahead.push_back(event);
        }
        if self.ended {
            std::future::pending().await
        }
    }
}

#[async_trait]
impl Writer for MemoryWriter {
    async fn write(&mut self, bytes: Bytes) -> Result<(), Reset> {
        let sender = self.0.as_ref().ok_or(Reset)?;
        sender.send(Event::Data(bytes)).await.map_err(|_| Reset)
    }

    async fn finish(&mut self) -> Result<(), Reset> {
        let sender = self.0.as_ref().ok_or(Reset)?;
        sender.send(Event::Fin).await.map_err(|_| Reset)
    }

    async fn reset(&mut self) {
        self.0 = None;
    }
}
