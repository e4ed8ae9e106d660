//! How the program starts and ends.

use crate::harness::{SOON, Server, free_port, key, read_to_end, soon, target};
use crate::program::{self, Program};
use nix::sys::signal::Signal;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use tunnel::stream::Reset;

#[tokio::test]
async fn it_ends_at_once_when_there_is_nothing_to_wait_for() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let program = Program::start(&[]).await;
        let mut silent = TcpStream::connect(("127.0.0.1", program.port))
            .await
            .unwrap();
        soon(silent.read_u8()).await.unwrap();
        let started = Instant::now();
        program.signal(signal);
        let (code, _) = program.end().await;
        assert_eq!(code, Some(0), "{signal}");
        assert!(started.elapsed() < Duration::from_secs(2));
    }
}

/// A stream under way may finish; new clients and callers are turned away meanwhile.
#[tokio::test]
async fn streams_under_way_may_finish() {
    let server = Server::start().await;
    let client = server.client().await;
    let claimed = client.claim("", 0).await.unwrap();
    let (_, listener) = target().await;
    let (mut stream, mut tcp) = client.reach("127.0.0.1", &listener).await;

    server.shutdown.cancel();
    soon(async { while TcpStream::connect(server.address).await.is_ok() {} }).await;
    soon(async { while TcpStream::connect(("127.0.0.1", claimed)).await.is_ok() {} }).await;
    tcp.write_all(b"the last words").await.unwrap();
    drop(tcp);
    stream.writer.finish().await.unwrap();
    let words = soon(read_to_end(stream.reader.as_mut())).await;
    assert_eq!(words.unwrap(), b"the last words");
    drop(stream);
    soon(server.ended.wait()).await;
    let farewell = soon(client.farewell).await;
    assert_eq!(farewell.as_deref(), Ok("the pod is terminating"));
}

/// A second signal is final.
#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let me = key("me");
    let authorized = me.public_key().to_openssh().unwrap();
    let program = Program::start(&[("TELEPRESENCE_AUTHORIZED_KEYS", &authorized)]).await;
    // A client with a stream, from a server's harness of its own whose address is the program's.
    let mut server = Server::start().await;
    server.address = ([127, 0, 0, 1], program.port).into();
    server.host_key = program.host_key.parse().unwrap();
    let client = server.client_with(&me).await;
    let (_, listener) = target().await;
    let (mut stream, _tcp) = client.reach("127.0.0.1", &listener).await;

    program.signal(Signal::SIGTERM);
    assert!(
        timeout(Duration::from_secs(1), stream.reader.read())
            .await
            .is_err(),
        "the stream goes on"
    );
    program.signal(Signal::SIGTERM);
    let (code, said) = program.end().await;
    assert_eq!(code, Some(143), "{said:?}");
    assert_eq!(soon(stream.reader.read()).await, Err(Reset));
}

#[tokio::test]
async fn a_port_that_is_taken_is_fatal() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = timeout(SOON, program::command(port).output())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains(&format!("cannot listen on 127.0.0.1:{port}")),
        "{text}"
    );
}

#[tokio::test]
async fn usage_errors_have_a_code_of_their_own() {
    let port = free_port().await;
    for arguments in [&["nonsense"][..], &["authorize"], &["--port", "0"]] {
        let output = program::command(port)
            .args(arguments)
            .output()
            .await
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
    let version = program::command(port)
        .arg("version")
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(version.stdout).unwrap();
    assert_eq!(text, format!("remote-sshd {}\n", env!("CARGO_PKG_VERSION")));
}

/// X7: what cannot be taken is told by its line, and nothing of a key or of the environment is repeated.
#[tokio::test]
async fn the_log_tells_lines_and_no_secrets() {
    let keys =
        "# team\nfrom=\"10.0.0.0/8\" ssh-ed25519 AAAASECRET\n-----BEGIN OPENSSH PRIVATE KEY-----";
    let program = Program::start(&[
        ("TELEPRESENCE_AUTHORIZED_KEYS", keys),
        ("PASSWORD", "SECRET"),
        ("RUST_LOG", "debug"),
    ])
    .await;
    let said = program.said.join("\n");
    assert!(
        said.contains("line 2: options before the key are not supported"),
        "{said}"
    );
    assert!(said.contains("line 3: not a public key"), "{said}");
    assert!(
        !said.contains("SECRET") && !said.contains("PRIVATE"),
        "{said}"
    );
}

#[tokio::test]
async fn keys_that_cannot_be_read_are_fatal() {
    let mut command = program::command(free_port().await);
    command.env("TELEPRESENCE_AUTHORIZED_KEYS", "/nonexistent/keys");
    let output = timeout(SOON, command.output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("TELEPRESENCE_AUTHORIZED_KEYS: cannot read /nonexistent/keys"),
        "{text}"
    );
}
