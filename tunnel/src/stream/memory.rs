//! A pair of streams within one process, for tests of what sees only [`Stream`].

use super::{Reader, Reset, Stream, Writer};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

/// Messages either direction holds before its writer waits.
const QUEUE: usize = 16;

enum Event {
    Data(Bytes),
    Fin,
}

struct MemoryReader(mpsc::Receiver<Event>);
struct MemoryWriter(Option<mpsc::Sender<Event>>);

/// Two streams, each the other's far side.
pub fn pair() -> (Stream, Stream) {
    let (a_send, a_receive) = mpsc::channel(QUEUE);
    let (b_send, b_receive) = mpsc::channel(QUEUE);
    let stream = |send, receive| Stream {
        reader: Box::new(MemoryReader(receive)),
        writer: Box::new(MemoryWriter(Some(send))),
    };
    (stream(a_send, b_receive), stream(b_send, a_receive))
}

#[async_trait]
impl Reader for MemoryReader {
    async fn read(&mut self) -> Result<Option<Bytes>, Reset> {
        match self.0.recv().await {
            Some(Event::Data(bytes)) => Ok(Some(bytes)),
            Some(Event::Fin) => Ok(None),
            None => Err(Reset),
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
