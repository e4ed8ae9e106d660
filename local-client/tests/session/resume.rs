//! Streams outlive the connections that carry them: every byte arrives once and in order, whatever happens to the links.

use crate::harness::{Pod, Supervised, echo, free_port, soon};
use crate::{say, target};
use bytes::Bytes;
use local_client::pod::{Incoming, Pod as _};
use local_client::session::rotation::Wear;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tunnel::dial::DialError;
use tunnel::stream::{Reset, Stream};

/// No test takes longer, on a busy machine.
const ALL: Duration = Duration::from_secs(240);

/// Pseudo-random bytes, their sum known.
struct Source {
    random: SmallRng,
    sum: Sha256,
    left: usize,
}

impl Source {
    fn new(seed: u64, size: usize) -> Source {
        Source {
            random: SmallRng::seed_from_u64(seed),
            sum: Sha256::new(),
            left: size,
        }
    }

    /// A piece of up to `most` bytes; `None` after the last.
    fn piece(&mut self, most: usize) -> Option<Bytes> {
        let size = self.random.random_range(1..=most).min(self.left);
        let mut piece = vec![0; size];
        self.random.fill_bytes(&mut piece);
        self.sum.update(&piece);
        self.left -= size;
        (size > 0).then(|| piece.into())
    }
}

/// Sends `size` bytes in pieces and at a pace of its own, ends its direction, and compares what comes back.
async fn busy(mut stream: Stream, seed: u64, size: usize) {
    let mut source = Source::new(seed, size);
    let mut pace = SmallRng::seed_from_u64(!seed);
    let sending = async {
        while let Some(piece) = source.piece(40_000) {
            stream.writer.write(piece).await.unwrap();
            if pace.random_ratio(1, 50) {
                sleep(Duration::from_millis(pace.random_range(0..30))).await;
            }
        }
        stream.writer.finish().await.unwrap();
        source.sum.finalize()
    };
    let receiving = async {
        let mut sum = Sha256::new();
        while let Some(bytes) = stream.reader.read().await.unwrap() {
            sum.update(&bytes);
        }
        sum.finalize()
    };
    let (sent, received) = tokio::join!(sending, receiving);
    assert_eq!(sent, received);
}

/// Streams that echo, opened one after the other, until told to stop; each is `size` bytes long. No attempt to open one fails, but for
/// what is `expected`.
async fn traffic(
    session: Arc<Supervised>,
    port: u16,
    number: u64,
    size: usize,
    expected: &'static [DialError],
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
) {
    let mut seed = number << 32;
    while !stop.load(Ordering::Relaxed) {
        seed += 1;
        match session.open(&target(port)).await {
            Ok(stream) => {
                busy(stream, seed, size).await;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                assert!(expected.contains(&error), "{error}");
                sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

/// 32 busy streams, some opened and some ended at every moment, while `disturb` does its worst. See [`traffic`].
async fn under_load(
    pod: &Pod,
    wear: Wear,
    size: usize,
    expected: &'static [DialError],
    disturb: impl AsyncFnOnce(&Supervised),
) -> u64 {
    let session = Arc::new(pod.session_that_wears(wear).await);
    let port = echo().await;
    let (stop, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let streams: Vec<_> = (0..32)
        .map(|number| {
            let traffic = traffic(
                session.clone(),
                port,
                number,
                size,
                expected,
                stop.clone(),
                done.clone(),
            );
            tokio::spawn(traffic)
        })
        .collect();
    disturb(&session).await;
    stop.store(true, Ordering::Relaxed);
    for stream in streams {
        timeout(ALL, stream).await.unwrap().unwrap();
    }
    done.load(Ordering::Relaxed)
}

/// The TCP connection below is killed, 300 times at random moments.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_survive_cuts_at_any_moment() {
    let pod = Pod::start().await;
    // Between two connections there is none at all, and an attempt fails at once.
    let expected = &[DialError::LinkDown];
    let done = under_load(&pod, Wear::default(), 3 << 20, expected, async |session| {
        let mut random = SmallRng::seed_from_u64(7);
        for n in 0..300 {
            // Sometimes in the middle of the handshake.
            while n % 50 != 0 && !session.healthy().await {
                sleep(Duration::from_millis(2)).await;
            }
            sleep(Duration::from_millis(random.random_range(0..100))).await;
            pod.cut();
        }
    })
    .await;
    assert!(done > 32, "{done} streams came to their end");
}

/// A connection is replaced over and over while nothing is wrong with it: nobody notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_move_to_a_new_connection() {
    let pod = Pod::start().await;
    let wear = Wear {
        bytes: 8 << 20,
        ..Wear::default()
    };
    let done = under_load(&pod, wear, 3 << 20, &[], async |_| {
        // A connection is looked at every half second.
        timeout(ALL, async {
            while pod.connections() <= 10 {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .unwrap();
    })
    .await;
    assert!(done >= 32, "{done} streams came to their end");
}

/// ... not even by a failed attempt to open a stream, of which none may fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_are_opened_while_connections_are_replaced() {
    let pod = Pod::start().await;
    let wear = Wear {
        channels: 40,
        ..Wear::default()
    };
    let session = pod.session_that_wears(wear).await;
    let port = echo().await;
    for _ in 0..600 {
        let mut stream = soon(session.open(&target(port))).await.unwrap();
        soon(say(&mut stream, "hello")).await;
        stream.writer.finish().await.unwrap();
        assert_eq!(soon(stream.reader.read()).await, Ok(None));
        sleep(Duration::from_millis(5)).await;
    }
    assert!(pod.connections() > 3, "{} connections", pod.connections());
}

async fn call(port: u16, incoming: &mut Incoming) -> (TcpStream, Stream) {
    let caller = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let taken = soon(incoming.0.recv()).await.unwrap();
    (caller, soon(taken.accept()).await.unwrap())
}

/// Callers' streams are taken up again, and a caller who waits is not lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_survive_a_cut() {
    let pod = Pod::start().await;
    let session = pod.session().await;
    let port = free_port().await;
    let mut incoming = session.listen(port).await.unwrap();
    let (mut caller, mut stream) = call(port, &mut incoming).await;
    let mut waiting = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let unanswered = soon(incoming.0.recv()).await.unwrap();
    pod.cut();
    let mut late = soon(unanswered.accept()).await.unwrap();
    late.writer.write("at last".into()).await.unwrap();
    let mut heard = [0; 7];
    soon(waiting.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"at last");
    for n in 0..10u8 {
        pod.cut();
        caller.write_all(&[n; 1000]).await.unwrap();
        let mut heard = vec![];
        while heard.len() < 1000 {
            heard.extend_from_slice(&soon(stream.reader.read()).await.unwrap().unwrap());
        }
        assert_eq!(heard, [n; 1000]);
        stream.writer.write(vec![n; 1000].into()).await.unwrap();
        let mut heard = [0; 1000];
        soon(caller.read_exact(&mut heard)).await.unwrap();
        assert_eq!(heard, [n; 1000]);
    }
}

/// A caller who comes while the link is half dead, which neither end knows, is taken in when the client is back.
#[tokio::test]
async fn a_caller_waits_for_the_client_to_be_back() {
    let pod = Pod::start().await;
    let session = pod.session().await;
    let port = free_port().await;
    let mut incoming = session.listen(port).await.unwrap();
    pod.freeze();
    let (mut caller, mut stream) = call(port, &mut incoming).await;
    stream.writer.write("at last".into()).await.unwrap();
    let mut heard = [0; 7];
    soon(caller.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"at last");
}

/// A stream of which one direction has ended, and one that nobody reads, are taken up as they are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_closed_and_stalled_streams_survive_a_cut() {
    const ANSWER: usize = 24 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = vec![];
                tcp.read_to_end(&mut request).await.unwrap();
                let mut source = Source::new(1, ANSWER);
                while let Some(piece) = source.piece(100_000) {
                    if tcp.write_all(&piece).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let pod = Pod::start().await;
    let session = pod.session().await;
    let mut stream = session.open(&target(port)).await.unwrap();
    stream.writer.write("request".into()).await.unwrap();
    stream.writer.finish().await.unwrap();
    for _ in 0..5 {
        // Nobody reads: it fills up to what was promised, and stands.
        sleep(Duration::from_millis(100)).await;
        pod.cut();
    }
    let (mut sum, mut count) = (Sha256::new(), 0);
    while let Some(bytes) = soon(stream.reader.read()).await.unwrap() {
        if count >> 22 != (count + bytes.len()) >> 22 {
            pod.cut();
        }
        count += bytes.len();
        sum.update(&bytes);
    }
    let mut source = Source::new(1, ANSWER);
    while source.piece(100_000).is_some() {}
    assert_eq!((count, sum.finalize()), (ANSWER, source.sum.finalize()));
}

/// When the process that knew the streams is gone, they are reset: at once, and not when patience ends.
#[tokio::test]
async fn streams_are_reset_when_the_pod_is_another_one() {
    let mut pod = Pod::start().await;
    let session = pod.session().await;
    let port = echo().await;
    let mut stream = session.open(&target(port)).await.unwrap();
    say(&mut stream, "before").await;
    // Without a goodbye, as after kill -9.
    pod.freeze();
    pod.restart().await;
    pod.cut();
    assert_eq!(soon(stream.reader.read()).await, Err(Reset));
    let mut stream = session.open(&target(port)).await.unwrap();
    say(&mut stream, "after").await;
}

/// Another key cannot take a stream up, nor can another run with the same key: ids of others mean nothing.
#[tokio::test]
async fn a_session_that_leaves_takes_its_streams_with_it() {
    let pod = Pod::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let session = pod.session().await;
    let other = pod.session().await;
    let mut mine = session.open(&target(port)).await.unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    let mut others = other.open(&target(port)).await.unwrap();
    let (mut others_far, _) = listener.accept().await.unwrap();
    drop(session);
    assert_eq!(soon(mine.reader.read()).await, Err(Reset));
    let error = soon(far.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    others_far.write_all(b"still here").await.unwrap();
    assert_eq!(
        soon(others.reader.read()).await.unwrap().unwrap(),
        "still here"
    );
    others.writer.finish().await.unwrap();
}

/// A pod that is replaced in order: its streams finish where they are, everything new is the next one's at once.
#[tokio::test]
async fn streams_of_a_pod_that_ends_may_finish_while_the_next_one_serves() {
    let mut pod = Pod::start_that_drains(ALL).await;
    let session = pod.session().await;
    let (echo, port) = (echo().await, free_port().await);
    let mut incoming = session.listen(port).await.unwrap();
    let mut stream = session.open(&target(echo)).await.unwrap();
    say(&mut stream, "before").await;
    let mut old_caller = soon(TcpStream::connect(("127.0.0.1", port))).await.unwrap();
    let mut old_called = soon(incoming.0.recv())
        .await
        .unwrap()
        .accept()
        .await
        .unwrap();
    let before = pod.connections();

    pod.replace().await;
    let call = async {
        loop {
            if let Ok(caller) = TcpStream::connect(("127.0.0.1", port)).await {
                return caller;
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    let mut caller = soon(call).await;
    let mut called = soon(incoming.0.recv())
        .await
        .unwrap()
        .accept()
        .await
        .unwrap();
    called.writer.write("called".into()).await.unwrap();
    let mut word = [0; 6];
    soon(caller.read_exact(&mut word)).await.unwrap();
    assert_eq!(&word, b"called");
    assert_eq!(pod.connections(), before + 1);
    let mut new = session.open(&target(echo)).await.unwrap();
    say(&mut new, "new").await;

    say(&mut stream, "after").await;
    stream.writer.finish().await.unwrap();
    assert!(soon(stream.reader.read()).await.unwrap().is_none());
    // The last one keeps the old connection alone.
    drop(stream);
    old_called.writer.write("called".into()).await.unwrap();
    soon(old_caller.read_exact(&mut word)).await.unwrap();
    old_caller.write_all(b"caller").await.unwrap();
    assert_eq!(
        soon(old_called.reader.read()).await.unwrap().unwrap(),
        "caller"
    );
}
