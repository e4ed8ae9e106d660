//! Stock OpenSSH under load: its windows are not ours to hold back, and yet nothing stands still or hurts another client.

use crate::harness::{SOON, free_port, soon, target};
use crate::openssh::{OpenSsh, connect};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// No test takes longer, on a busy machine.
const ALL: Duration = Duration::from_secs(120);
const MIB: usize = 1 << 20;
const CHUNK: usize = 32 << 10;

/// A target that does with each connection what `serve` says.
async fn serves<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let (port, listener) = target().await;
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(serve(tcp));
        }
    });
    port
}

/// A target that sends everything back, at once.
async fn echo() -> u16 {
    serves(async |mut tcp: TcpStream| {
        let (mut read, mut write) = tcp.split();
        // The test may have seen enough.
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    })
    .await
}

/// Sends `size` bytes that no other connection sends, while as many come back.
async fn echoed(mut tcp: TcpStream, size: usize, connection: u8) {
    let byte = |position: usize| connection.wrapping_add((position / CHUNK % 251) as u8);
    let (mut read, mut write) = tcp.split();
    let sending = async {
        for position in (0..size).step_by(CHUNK) {
            write.write_all(&[byte(position); CHUNK]).await.unwrap();
        }
        write.shutdown().await.unwrap();
    };
    let receiving = async {
        let mut chunk = [0; CHUNK];
        for position in (0..size).step_by(CHUNK) {
            read.read_exact(&mut chunk).await.unwrap();
            assert!(chunk.iter().all(|b| *b == byte(position)), "at {position}");
        }
        assert_eq!(read.read(&mut chunk).await.unwrap(), 0);
    };
    tokio::join!(sending, receiving);
}

async fn ping(tcp: &mut TcpStream) {
    tcp.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    soon(tcp.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"ping");
}

/// Deadlock: everything is sent back, on so many connections at once that every buffer on the way is full.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m1_16_echoes_at_once_do_not_block_each_other() {
    let ssh = OpenSsh::start().await;
    let (port, local) = (echo().await, free_port().await);
    let _client = ssh
        .forwarding(&["-L", &format!("127.0.0.1:{local}:127.0.0.1:{port}")])
        .await;
    let mut all = JoinSet::new();
    for connection in 0..16 {
        let tcp = connect(local).await;
        all.spawn(echoed(tcp, 16 * MIB, connection * 16));
    }
    timeout(ALL, all.join_all()).await.unwrap();
}

/// Neither who does not read what comes down, nor a target that does not read what goes up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m1_what_stops_at_one_client_does_not_hurt_another() {
    let ssh = OpenSsh::start().await;
    let echo = echo().await;
    let pours =
        serves(async |mut tcp: TcpStream| while tcp.write_all(&[7; CHUNK]).await.is_ok() {}).await;
    let never_reads = serves(async |tcp: TcpStream| {
        tokio::time::sleep(ALL).await;
        drop(tcp);
    })
    .await;
    let locals = [free_port().await, free_port().await, free_port().await];
    let forward = |local: usize, port: u16| format!("127.0.0.1:{}:127.0.0.1:{port}", locals[local]);
    let (to_pours, to_never_reads) = (forward(0, pours), forward(1, never_reads));
    let _stopped = ssh
        .forwarding(&["-L", &to_pours, "-L", &to_never_reads])
        .await;
    let _other = ssh.forwarding(&["-L", &forward(2, echo)]).await;

    let unread = connect(locals[0]).await;
    // So much that the server cannot hold it for a target that does not read: it has to stop reading from this client.
    let mut pushing = connect(locals[1]).await;
    let chunk = [7; CHUNK];
    let pushed = async {
        let mut pushed = 0;
        while let Ok(written) = timeout(Duration::from_secs(2), pushing.write(&chunk)).await {
            pushed += written.unwrap();
        }
        pushed
    };
    let mut chat = connect(locals[2]).await;
    let chatting = async {
        for _ in 0..100 {
            ping(&mut chat).await;
        }
    };
    let (pushed, ()) = tokio::join!(pushed, chatting);
    assert!(pushed < 256 * MIB, "{} MiB and no end", pushed / MIB);
    // By now all has come to a stand that will.
    ping(&mut chat).await;
    timeout(ALL, echoed(connect(locals[2]).await, 32 * MIB, 1))
        .await
        .unwrap();
    let own = ssh.server.client().await;
    let mut stream = timeout(SOON, own.open("127.0.0.1", echo))
        .await
        .unwrap()
        .unwrap();
    stream.writer.write("ping".into()).await.unwrap();
    assert_eq!(soon(stream.reader.read()).await.unwrap().unwrap(), "ping");
    drop(unread);
}
