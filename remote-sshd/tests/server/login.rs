//! Who is let in, and what those who are not can do (X1, X5).

use crate::harness::{Client, SOON, Server, key, soon, variable};
use crate::program::Program;
use remote_sshd::limits::Limits;
use russh::client::AuthResult;
use russh::keys::PrivateKeyWithHashAlg;
use russh::{MethodKind, MethodSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tunnel::credit::Budget;
use tunnel::facts::{Facts, SUBSYSTEM};

/// X1: no key, a wrong key, a password: refused, with the one method that there is.
#[tokio::test]
async fn only_an_authorized_key_enters() {
    let server = Server::start().await;
    let mut client = Client::connect(&server).await;
    let wrong = PrivateKeyWithHashAlg::new(Arc::new(key("wrong")), None);
    for attempt in [
        client.handle_mut().authenticate_none("root").await,
        client.handle_mut().authenticate_password("root", "").await,
        client
            .handle_mut()
            .authenticate_password("telepresence", "telepresence")
            .await,
        client
            .handle_mut()
            .authenticate_publickey("root", wrong)
            .await,
    ] {
        let AuthResult::Failure {
            remaining_methods, ..
        } = attempt.unwrap()
        else {
            panic!("let in");
        };
        assert_eq!(
            remaining_methods,
            MethodSet::from(&[MethodKind::PublicKey][..])
        );
    }
    assert!(client.handle.channel_open_session().await.is_err());
}

#[tokio::test]
async fn attempts_are_counted() {
    let server = Server::start().await;
    let mut client = Client::connect(&server).await;
    let mut attempts = 0;
    let wrong = Arc::new(key("wrong"));
    while soon(
        client
            .handle_mut()
            .authenticate_publickey("x", PrivateKeyWithHashAlg::new(wrong.clone(), None)),
    )
    .await
    .is_ok()
    {
        attempts += 1;
        assert!(attempts < 20);
    }
    assert!(attempts >= 3, "a laptop has several keys");
}

/// A registered key enters, and only until it lapses.
#[tokio::test]
async fn a_registered_key_enters() {
    let server = Server::start().await;
    let colleague = server.colleague("anna");
    let facts: Facts = server.client_with(&colleague).await.ask(SUBSYSTEM).await;
    assert!(facts.environment == [variable(b"ODD", b"two\nlines \xff")]);
    assert_eq!(
        facts.resolv_conf.0,
        std::fs::read(&server.files.resolv_conf).unwrap()
    );
    assert_eq!(facts.hosts.0, std::fs::read(&server.files.hosts).unwrap());
    assert!(!facts.hostname.is_empty() && !facts.version.is_empty());
    assert_eq!(facts.budget, Budget::of_this_process().total());
}

#[tokio::test]
async fn unknown_subsystems_are_refused() {
    let server = Server::start().await;
    let client = server.client().await;
    for name in ["sftp", "", "DNS", "udp "] {
        assert!(client.subsystem(name).await.is_none(), "{name}");
    }
    let _: Facts = client.ask(SUBSYSTEM).await;
}

/// Whoever says nothing, or too little too slowly, is sent away.
#[tokio::test]
async fn a_silent_peer_is_sent_away() {
    let login = Duration::from_secs(1);
    let limits = Limits {
        login,
        ..Limits::default()
    };
    let server = Server::start_with_limits(limits).await;
    let started = Instant::now();
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut slow = TcpStream::connect(server.address).await.unwrap();
    let mut trickling = TcpStream::connect(server.address).await.unwrap();
    let mut early = TcpStream::connect(server.address).await.unwrap();
    early.write_all(b"SSH-2.0-early\r\n").await.unwrap();
    slow.write_all(b"SSH-2.0-slow").await.unwrap();
    let trickle = async {
        while trickling.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await
        }
    };
    let ends = futures::future::join3(ended(&mut silent), ended(&mut slow), ended(&mut early));
    soon(async { tokio::join!(ends, trickle) }).await;
    assert!(started.elapsed() >= login);
    server.client().await;
}

async fn ended(tcp: &mut TcpStream) {
    let mut all = vec![];
    // A reset is an end, too.
    let _ = tcp.read_to_end(&mut all).await;
}

/// X5, before authentication.
#[tokio::test]
async fn garbage_is_survived() {
    let server = Server::start().await;
    let hello = b"SSH-2.0-x\r\n".as_slice();
    let garbage: [Vec<u8>; 7] = [
        vec![0; 1 << 20],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"SSH-1.0-old\r\n".to_vec(),
        [hello, &[0xff; 64]].concat(),
        // A packet as long as can be said, and one that is shorter than its padding.
        [hello, &u32::MAX.to_be_bytes(), &[255; 1000]].concat(),
        [hello, &[0, 0, 0, 1, 200, 20]].concat(),
        // A key exchange of which every list is longer than the packet.
        [hello, &[0, 0, 0, 28, 4, 20], &[0xff; 26]].concat(),
    ];
    for bytes in garbage {
        let mut tcp = TcpStream::connect(server.address).await.unwrap();
        // The server may have closed before all was said.
        let _ = tcp.write_all(&bytes).await;
        let _ = tcp.shutdown().await;
        soon(ended(&mut tcp)).await;
    }
    server.client().await;
}

/// X5, after authentication: bits that flip on the way end that connection and nothing else.
#[tokio::test]
async fn garbage_after_authentication_ends_one_connection() {
    let server = Server::start().await;
    let (near, mut far) = tokio::io::duplex(64 << 10);
    let mut tcp = TcpStream::connect(server.address).await.unwrap();
    let flip = Arc::new(AtomicBool::new(false));
    let flipping = flip.clone();
    let proxy = tokio::spawn(async move {
        let (mut read, mut write) = tcp.split();
        let (mut far_read, mut far_write) = tokio::io::split(&mut far);
        let up = async {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = far_read.read(&mut buffer).await {
                if flipping.load(Ordering::SeqCst) {
                    buffer[n - 1] ^= 1;
                }
                if write.write_all(&buffer[..n]).await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            () = up => {}
            _ = tokio::io::copy(&mut read, &mut far_write) => {}
        }
    });
    let mut client = Client::connect_over(&server, near).await.unwrap();
    let login = PrivateKeyWithHashAlg::new(Arc::new(server.key.clone()), None);
    assert!(
        client
            .handle_mut()
            .authenticate_publickey("x", login)
            .await
            .unwrap()
            .success()
    );
    let port = client.claim("", 0).await.unwrap();
    flip.store(true, Ordering::SeqCst);
    assert!(soon(client.handle.channel_open_session()).await.is_err());
    soon(proxy).await.unwrap();
    soon(async { while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {} }).await;
    server.client().await;
}

/// X5: clients that are not authenticated are few, and cost little.
#[tokio::test]
async fn a_thousand_unauthenticated_connections_are_bounded() {
    const CONNECTIONS: usize = 1000;
    const ALIVE: usize = 64;
    // What russh holds for each of them, and some.
    const MEMORY: u64 = ALIVE as u64 * 768;
    let program = Program::start(&[]).await;
    let before = program.memory_kib();
    let mut open = vec![];
    for _ in 0..CONNECTIONS {
        let mut tcp = TcpStream::connect(("127.0.0.1", program.port))
            .await
            .unwrap();
        // Those that are closed at once do not take it.
        let _ = tcp.write_all(b"SSH-2.0-x\r\n\x00\x03\xff\xff").await;
        let _ = tcp.write_all(&[0; 4096]).await;
        open.push(tcp);
    }
    let mut alive = 0;
    for tcp in &mut open {
        let greeting = timeout(SOON, tcp.read_u8())
            .await
            .expect("a greeting or the end");
        alive += usize::from(greeting.is_ok());
    }
    assert!((1..=ALIVE).contains(&alive), "{alive}");
    let grown = program.memory_kib().saturating_sub(before);
    assert!(grown < MEMORY, "{grown} KiB");
    for tcp in &mut open {
        soon(ended(tcp)).await;
    }
    program
        .authorize(&key("late").public_key().to_openssh().unwrap())
        .await;
    let mut late = TcpStream::connect(("127.0.0.1", program.port))
        .await
        .unwrap();
    soon(late.read_u8()).await.expect("a greeting");
}
