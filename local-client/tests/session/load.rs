//! One connection carries everything at once: no stream starves, blocks or corrupts another, and nothing grows without bound.

use crate::harness::{Pod, Supervised, echo, free_port, soon};
use crate::{say, target};
use bytes::Bytes;
use local_client::pod::Pod as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tunnel::dial::DialError;
use tunnel::stream::{Reader, Reset, Stream, Writer};

/// No test takes longer, on a busy machine.
const ALL: Duration = Duration::from_secs(200);
const MIB: usize = 1 << 20;
const CHUNK: usize = 32 << 10;

/// Pages that this process has in memory, client and server together, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Waits until `value` is at most `bound`.
async fn settles(what: &str, bound: usize, value: impl Fn() -> usize) {
    for _ in 0..1000 {
        if value() <= bound {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("{what}: {}, not {bound} or less", value());
}

async fn count(reader: &mut dyn Reader) -> Result<usize, Reset> {
    let mut count = 0;
    while let Some(bytes) = reader.read().await? {
        count += bytes.len();
    }
    Ok(count)
}

async fn send(writer: &mut dyn Writer, size: usize) {
    let chunk = Bytes::from(vec![7; CHUNK]);
    for _ in 0..size / CHUNK {
        writer.write(chunk.clone()).await.unwrap();
    }
    writer.finish().await.unwrap();
}

/// A target that does with each connection what `serve` says.
async fn serves<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(serve(tcp));
        }
    });
    port
}

/// A target that sends as much as anybody takes, and reads nothing.
async fn firehose() -> u16 {
    serves(async |mut tcp: TcpStream| while tcp.write_all(&[7; CHUNK]).await.is_ok() {}).await
}

/// Pings pass, new streams open and the link is healthy while something else goes on.
async fn others_are_left_alone(session: &Supervised, echo: u16, rounds: usize) {
    let mut chat = soon(session.open(&target(echo))).await.unwrap();
    for _ in 0..rounds {
        soon(say(&mut chat, "ping")).await;
        let mut fresh = soon(session.open(&target(echo))).await.unwrap();
        soon(say(&mut fresh, "fresh")).await;
        assert!(soon(session.healthy()).await);
    }
}

/// Readers that stop, in either direction and on either kind of channel, stop their own streams and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o11_stopped_readers_leave_everything_else_alone() {
    let pod = Pod::start().await;
    let session = pod.session().await;
    let (echo, firehose) = (echo().await, firehose().await);
    let never_reads = serves(async |tcp: TcpStream| {
        sleep(ALL).await;
        drop(tcp);
    })
    .await;
    let port = free_port().await;
    let mut incoming = session.listen(port).await.unwrap();
    others_are_left_alone(&session, echo, 1).await;
    let before = resident();

    // Nobody reads what comes down ...
    let mut stopped = vec![];
    for _ in 0..8 {
        stopped.push(session.open(&target(firehose)).await.unwrap());
    }
    // ... nor what goes up, ...
    let mut pushing = JoinSet::new();
    for _ in 0..8 {
        let mut stream = session.open(&target(never_reads)).await.unwrap();
        pushing.spawn(
            async move { while stream.writer.write(vec![7; CHUNK].into()).await.is_ok() {} },
        );
    }
    // ... nor what a caller of the pod sends, ...
    let mut caller = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let called = soon(incoming.0.recv())
        .await
        .unwrap()
        .accept()
        .await
        .unwrap();
    pushing.spawn(async move { while caller.write_all(&[7; CHUNK]).await.is_ok() {} });
    // ... nor what is sent to another one.
    let deaf = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut told = soon(incoming.0.recv())
        .await
        .unwrap()
        .accept()
        .await
        .unwrap();
    pushing.spawn(async move { while told.writer.write(vec![7; CHUNK].into()).await.is_ok() {} });

    others_are_left_alone(&session, echo, 300).await;
    // 18 streams of 64 KiB, the targets' own socket buffers not counted; promises do not grow while nobody reads.
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 * MIB, "{} MiB", grown / MIB);
    drop((stopped, called, deaf));
    pushing.abort_all();
}

/// Deadlock: everything is sent back, on so many streams at once that every buffer on the way is full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn echoes_on_1_4_and_16_streams_do_not_block_each_other() {
    let pod = Pod::start().await;
    let session = Arc::new(pod.session().await);
    let echo = echo().await;
    for streams in [1, 4, 16] {
        let mut all = JoinSet::new();
        for _ in 0..streams {
            let session = session.clone();
            all.spawn(async move {
                let Stream {
                    mut reader,
                    mut writer,
                } = session.open(&target(echo)).await.unwrap();
                let sending = send(writer.as_mut(), 64 * MIB);
                let (count, ()) = tokio::join!(count(reader.as_mut()), sending);
                assert_eq!(count, Ok(64 * MIB));
            });
        }
        timeout(ALL, all.join_all()).await.unwrap();
    }
}

/// After the end of one direction, 64 MiB follow in the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o8_bulk_follows_the_end_of_the_other_direction() {
    let pod = Pod::start().await;
    let session = pod.session().await;
    let answers = serves(async |mut tcp: TcpStream| {
        let mut request = vec![];
        tcp.read_to_end(&mut request).await.unwrap();
        for _ in 0..64 * MIB / CHUNK {
            tcp.write_all(&[7; CHUNK]).await.unwrap();
        }
    })
    .await;
    let mut stream = session.open(&target(answers)).await.unwrap();
    stream.writer.write("request".into()).await.unwrap();
    stream.writer.finish().await.unwrap();
    assert_eq!(soon(count(stream.reader.as_mut())).await, Ok(64 * MIB));

    let (told, mut counts) = tokio::sync::mpsc::channel(1);
    let listens = serves(move |mut tcp: TcpStream| {
        let told = told.clone();
        async move {
            tcp.shutdown().await.unwrap();
            let mut all = vec![];
            tcp.read_to_end(&mut all).await.unwrap();
            told.send(all.len()).await.unwrap();
        }
    })
    .await;
    let mut stream = session.open(&target(listens)).await.unwrap();
    assert_eq!(soon(stream.reader.read()).await, Ok(None));
    soon(send(stream.writer.as_mut(), 64 * MIB)).await;
    assert_eq!(soon(counts.recv()).await, Some(64 * MIB));
}

/// A thousand streams at once, and twenty thousand short ones: what they took is given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o13_many_streams_leave_nothing_behind() {
    let pod = Pod::start().await;
    let session = Arc::new(pod.session().await);
    let echo = echo().await;
    let short = async |count: usize, at_once: usize| {
        let mut running = JoinSet::new();
        for n in 0..count {
            if running.len() == at_once {
                running.join_next().await.unwrap().unwrap();
            }
            let session = session.clone();
            running.spawn(async move {
                let mut stream = session.open(&target(echo)).await.unwrap();
                say(&mut stream, "short").await;
                stream.writer.finish().await.unwrap();
                assert_eq!(stream.reader.read().await, Ok(None), "stream {n}");
            });
        }
        running.join_all().await;
    };
    // What is allocated once, is allocated now.
    timeout(ALL, short(2000, 16)).await.unwrap();
    let (files, memory) = (descriptors(), resident());

    let mut open = vec![];
    for _ in 0..1000 {
        open.push(soon(session.open(&target(echo))).await.unwrap());
    }
    for stream in &mut open {
        soon(say(stream, "all at once")).await;
    }
    let grown = resident().saturating_sub(memory);
    assert!(grown < 128 * MIB, "{} KiB per stream", grown / 1000 / 1024);
    drop(open);
    settles("descriptors", files + 8, descriptors).await;

    timeout(ALL, short(18_000, 16)).await.unwrap();
    settles("descriptors", files + 8, descriptors).await;
    settles("memory", memory + 48 * MIB, resident).await;
}

/// What is slow or silent holds up nobody else, and ends by its own timeout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o10_slow_targets_stay_local() {
    let pod = Pod::start().await;
    let session = Arc::new(pod.session().await);
    let echo = echo().await;
    // A listener whose queue is full does not answer.
    let full = TcpListener::bind("127.0.0.1:0").await.unwrap();
    socket2::SockRef::from(&full).listen(0).unwrap();
    let port = full.local_addr().unwrap().port();
    let mut filling = vec![];
    while let Ok(tcp) = timeout(
        Duration::from_millis(200),
        TcpStream::connect(("127.0.0.1", port)),
    )
    .await
    {
        filling.push(tcp.unwrap());
    }
    let slow: Vec<_> = (0..50)
        .map(|_| {
            let session = session.clone();
            tokio::spawn(async move { session.open(&target(port)).await })
        })
        .collect();
    // The nameserver of this pod does not answer, either.
    let nameless = session.clone();
    let nameless = tokio::spawn(async move {
        let host = "nowhere.example".into();
        nameless
            .open(&local_client::pod::Target { host, port: 80 })
            .await
    });
    soon(pod.nameserver.readable()).await.unwrap();
    others_are_left_alone(&session, echo, 100).await;
    assert!(slow.iter().all(|slow| !slow.is_finished()), "as in the pod");
    let nameless = soon(nameless).await.unwrap().unwrap_err();
    assert!(
        matches!(nameless, DialError::Nameserver | DialError::TimedOut),
        "{nameless}"
    );
}
