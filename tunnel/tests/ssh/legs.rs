//! Streams that go from one connection to the next, and the end of patience with them. Time is paused: where nothing can happen but
//! a timeout, that is what happens.

use crate::harness::{Ends, Server, closed_after, open};
use crate::plain::echo;
use russh::ChannelMsg;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tunnel::RESUME_TIMEOUT;
use tunnel::dial::DialError;
use tunnel::label::Label;
use tunnel::stream::{Reset, Stream};

/// What an end that takes 1 MiB says of a stream that it opens.
const LABEL: &str = "stream=00000000000000000000000000000001 leg=0 received=0 limit=1048576";

const TIMEOUT: Duration = Duration::from_secs(15);

/// A server that hands its ends of streams to the test.
fn handing() -> (Server, mpsc::UnboundedReceiver<Stream>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let server = Server::new(move |stream| {
        let _ = sender.send(stream);
        async {}
    });
    (server, receiver)
}

async fn connected(server: &Server) -> watch::Sender<Option<Arc<Ends>>> {
    watch::Sender::new(Some(Arc::new(Ends::to(server).await)))
}

fn cut(connections: &watch::Sender<Option<Arc<Ends>>>) {
    let ends = connections.send_replace(None).unwrap();
    ends.gate.close();
    ends.far.gate.close();
}

async fn say(stream: &mut Stream, word: &'static str) {
    stream.writer.write(word.into()).await.unwrap();
    assert_eq!(stream.reader.read().await.unwrap().unwrap(), word);
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_over_the_next_connection() {
    let server = Server::new(echo);
    let connections = connected(&server).await;
    let mut stream = open(&connections, "x", TIMEOUT).await.unwrap();
    say(&mut stream, "before").await;
    cut(&connections);
    stream.writer.write("meanwhile".into()).await.unwrap();
    sleep(RESUME_TIMEOUT - Duration::from_secs(1)).await;
    connections.send_replace(Some(Arc::new(Ends::to(&server).await)));
    assert_eq!(stream.reader.read().await.unwrap().unwrap(), "meanwhile");
    assert_eq!(server.acceptor.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn both_ends_give_a_stream_up_that_is_not_taken_up_again() {
    let (server, mut streams) = handing();
    let connections = connected(&server).await;
    let mut near = open(&connections, "x", TIMEOUT).await.unwrap();
    let mut far = streams.recv().await.unwrap();
    assert!(!server.acceptor.is_empty());
    cut(&connections);
    let before = Instant::now();
    let ends = tokio::join!(near.reader.read(), far.reader.read());
    assert_eq!(ends, (Err(Reset), Err(Reset)));
    assert_eq!(before.elapsed(), RESUME_TIMEOUT);
    assert!(server.acceptor.is_empty());
    drop((near, far));
    assert_eq!(server.budget.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_is_not_waited_for() {
    let (server, mut streams) = handing();
    let connections = connected(&server).await;
    let _near = open(&connections, "x", TIMEOUT).await.unwrap();
    let mut far = streams.recv().await.unwrap();
    let before = Instant::now();
    connections.borrow().as_ref().unwrap().far.left.cancel();
    cut(&connections);
    assert_eq!(far.reader.read().await, Err(Reset));
    assert!(before.elapsed() < RESUME_TIMEOUT / 2);
}

/// A stream is reset, and nobody waits, when `next` takes the place of its connection. Returns what connects then.
async fn reset_by(next: Ends) -> watch::Sender<Option<Arc<Ends>>> {
    let server = Server::new(echo);
    let connections = connected(&server).await;
    let mut stream = open(&connections, "x", TIMEOUT).await.unwrap();
    say(&mut stream, "before").await;
    cut(&connections);
    let before = Instant::now();
    connections.send_replace(Some(Arc::new(next)));
    assert_eq!(stream.reader.read().await, Err(Reset));
    assert!(before.elapsed() < RESUME_TIMEOUT / 2);
    connections
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_known_is_reset() {
    let other = Server::new(echo);
    reset_by(Ends::to(&other).await).await;
    assert!(other.acceptor.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_plain_server_is_asked_for_no_stream() {
    let plain = Ends::to(&Server::new(echo)).await.taking_it_for_plain();
    let connections = reset_by(plain).await;
    let error = open(&connections, "x", TIMEOUT).await.unwrap_err();
    assert_eq!(error, DialError::LinkDown);
}

/// What the server answers in the very moment of the cut is neither lost nor done twice: the request is the same one.
#[tokio::test(start_paused = true)]
async fn an_opening_is_repeated_on_the_next_connection() {
    let (server, mut streams) = handing();
    let connections = connected(&server).await;
    let opening = open(&connections, "x", TIMEOUT);
    let cutting = async {
        let far = streams.recv().await.unwrap();
        cut(&connections);
        connections.send_replace(Some(Arc::new(Ends::to(&server).await)));
        far
    };
    let (near, mut far) = tokio::join!(opening, cutting);
    near.unwrap().writer.write("hello".into()).await.unwrap();
    assert_eq!(far.reader.read().await.unwrap().unwrap(), "hello");
    assert!(streams.try_recv().is_err(), "one stream, and not two");
}

/// A stream is opened while a newer connection takes the place of one that does not bring the answer, or, where `late`, brings it before the
/// other end knows that the stream has moved: nothing is lost, nor done twice.
async fn opened_on_a_newer_connection(late: bool) {
    const SOON: Duration = Duration::from_secs(1);
    let (server, mut streams) = handing();
    let (old, old_passes) = Ends::to_slowly(&server).await;
    let (new, new_passes) = Ends::to_slowly(&server).await;
    let connections = watch::Sender::new(Some(Arc::new(old)));
    old_passes.down.send_replace(false);
    new_passes.up.send_replace(false);
    let opening = open(&connections, "x", TIMEOUT);
    let moving = async {
        let far = streams.recv().await.unwrap();
        let old = connections.send_replace(Some(Arc::new(new)));
        sleep(SOON).await;
        old_passes.down.send_replace(late);
        sleep(SOON).await;
        assert_eq!(server.asked.load(Ordering::Relaxed), 1);
        new_passes.up.send_replace(true);
        (far, old)
    };
    let before = Instant::now();
    let (near, (far, _old)) = tokio::join!(opening, moving);
    assert!(before.elapsed() < 3 * SOON);
    tokio::spawn(echo(far));
    let saying = async { say(&mut near.unwrap(), "hello").await };
    timeout(TIMEOUT, saying).await.unwrap();
    assert!(streams.try_recv().is_err(), "one stream, and not two");
}

#[tokio::test(start_paused = true)]
async fn an_opening_moves_to_a_newer_connection() {
    opened_on_a_newer_connection(false).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_late_does_no_harm() {
    opened_on_a_newer_connection(true).await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_why() {
    let server = Server::new(echo);
    let connections = connected(&server).await;
    let before = Instant::now();
    let error = open(&connections, "nobody", TIMEOUT).await.unwrap_err();
    assert_eq!(error, DialError::Refused);
    assert!(before.elapsed() < TIMEOUT && server.acceptor.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_opening_without_an_answer_is_given_up() {
    let server = Server::new(echo);
    let connections = connected(&server).await;
    let before = Instant::now();
    let error = open(&connections, "silent", TIMEOUT).await.unwrap_err();
    assert_eq!(error, DialError::TimedOut);
    assert_eq!(before.elapsed(), TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn without_a_connection_an_opening_fails_at_once() {
    let server = Server::new(echo);
    let connections = connected(&server).await;
    cut(&connections);
    let error = open(&connections, "x", TIMEOUT).await.unwrap_err();
    assert_eq!(error, DialError::LinkDown);
}

#[tokio::test(start_paused = true)]
async fn a_direction_ends_on_its_own() {
    let server = Server::new(echo);
    let connections = connected(&server).await;
    let mut stream = open(&connections, "x", TIMEOUT).await.unwrap();
    stream.writer.write("request".into()).await.unwrap();
    stream.writer.finish().await.unwrap();
    let (mut answer, before) = (vec![], Instant::now());
    while let Some(bytes) = stream.reader.read().await.unwrap() {
        answer.extend_from_slice(&bytes);
    }
    assert_eq!(answer, b"request");
    assert!(before.elapsed() < TIMEOUT);
}

/// A stream keeps its channel while there is no better connection: none other, or one to an end that does not know it, as the
/// one that it is on is leaving.
#[tokio::test(start_paused = true)]
async fn a_stream_stays_where_it_is() {
    let (server, other) = (Server::new(echo), Server::new(echo));
    let connections = connected(&server).await;
    let mut stream = open(&connections, "x", TIMEOUT).await.unwrap();
    let asked = || [&server, &other].map(|server| server.asked.load(Ordering::Relaxed));
    say(&mut stream, "alone").await;
    sleep(TIMEOUT).await;
    assert_eq!(asked(), [1, 0]);

    let old = connections.borrow().clone().unwrap();
    old.link.left.cancel();
    connections.send_replace(Some(Arc::new(Ends::to(&other).await)));
    sleep(TIMEOUT).await;
    say(&mut stream, "leaving").await;
    assert_eq!(asked(), [1, 0]);
}

/// Streams leave a connection that another one is to replace, and nothing of them stays behind.
#[tokio::test(start_paused = true)]
async fn streams_move_off_a_connection_that_is_replaced() {
    let server = Server::new(echo);
    let connections = connected(&server).await;
    let mut stream = open(&connections, "x", TIMEOUT).await.unwrap();
    say(&mut stream, "before").await;
    let next = Arc::new(Ends::to(&server).await);
    let old = connections.send_replace(Some(next)).unwrap();
    let legs = old.far.legs.clone();
    legs.close();
    timeout(TIMEOUT, legs.wait()).await.unwrap();
    say(&mut stream, "after").await;
}

/// A request that was overtaken on the way, by a later one on another connection, does not take the stream away from that.
#[tokio::test(start_paused = true)]
async fn a_request_that_comes_late_changes_nothing() {
    let (server, mut streams) = handing();
    let (old, new) = (Ends::to(&server).await, Ends::to(&server).await);
    let label = |leg| Label {
        leg,
        ..LABEL.parse().unwrap()
    };
    let mut channel = new.ask(label(1)).await.unwrap();
    let mut far = streams.recv().await.unwrap();
    old.ask(label(0)).await.unwrap_err();
    far.writer.write("hello".into()).await.unwrap();
    loop {
        if let ChannelMsg::Data { data } = channel.wait().await.unwrap() {
            break assert_eq!(&data[..], b"hello");
        }
    }
}

/// The end that does not close first does not wait for ever for the other one to do so.
#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_close_a_channel_is_left() {
    let (server, mut streams) = handing();
    let ends = Ends::to(&server).await;
    let channel = ends.ask(LABEL.parse().unwrap()).await.unwrap();
    streams.recv().await.unwrap().writer.reset().await;
    assert_eq!(closed_after(channel).await, Duration::from_secs(30));
}
