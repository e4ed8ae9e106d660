//! Ports of the pod that clients listen on.

use crate::harness::{Client, SOON, Server, read_to_end, soon, target};
use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tunnel::claims::{RefusalReason, Report, SUBSYSTEM};

async fn answered(client: &mut Client, port: u16) -> bool {
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut caller = client.caller().await;
    caller.stream.writer.write("hello".into()).await.unwrap();
    caller.stream.writer.finish().await.unwrap();
    let mut answer = String::new();
    soon(tcp.read_to_string(&mut answer)).await.unwrap();
    answer == "hello"
}

async fn closed(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).await.is_err()
}

#[tokio::test]
async fn a_caller_reaches_the_client() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let port = client.claim("", 0).await.unwrap();
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    tcp.write_all(b"request").await.unwrap();
    tcp.shutdown().await.unwrap();

    let mut caller = client.caller().await;
    let met = (caller.address.as_str(), caller.port, caller.from.as_str());
    assert_eq!(met, ("", u32::from(port), "127.0.0.1"));
    let request = soon(read_to_end(caller.stream.reader.as_mut())).await;
    assert_eq!(request.unwrap(), b"request");
    caller.stream.writer.write("answer".into()).await.unwrap();
    caller.stream.writer.finish().await.unwrap();
    let mut answer = vec![];
    soon(tcp.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"answer");
}

/// I2: several ports, each cancelled on its own, free again at once.
#[tokio::test]
async fn claims_are_cancelled_one_by_one() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let one = client.claim("", 0).await.unwrap();
    let two = client.claim("127.0.0.1", 0).await.unwrap();
    assert!(answered(&mut client, one).await && answered(&mut client, two).await);

    for _ in 0..50 {
        // One right behind the other: the port is free when the first is answered, and not a little later.
        let (cancelled, claimed) = tokio::join!(
            client.cancel("127.0.0.1", two),
            client.claim("127.0.0.1", two)
        );
        assert!(cancelled);
        assert_eq!(claimed, Some(two));
    }
    assert!(client.cancel("127.0.0.1", two).await);
    assert!(closed(two).await);
    assert!(!client.cancel("127.0.0.1", two).await);
    assert!(!client.cancel("localhost", one).await);
    assert!(answered(&mut client, one).await);
}

/// I3: nothing listens locally.
#[tokio::test]
async fn a_caller_that_the_client_refuses_is_reset() {
    let server = Server::start().await;
    let client = server.client().await;
    let port = client.claim("", 0).await.unwrap();
    client.refuse.store(true, Ordering::SeqCst);
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let error = soon(tcp.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// A client that leaves callers without an answer: they are reset, and its late answers do no harm.
#[tokio::test]
async fn a_caller_that_the_client_ignores_is_reset() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let port = client.claim("", 0).await.unwrap();
    client.ignore.store(true, Ordering::SeqCst);
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let error = soon(tcp.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    client.ignore.store(false, Ordering::SeqCst);
    assert!(answered(&mut client, port).await);
}

#[tokio::test]
async fn a_claim_ends_with_its_connection() {
    let server = Server::start().await;
    let client = server.client().await;
    let port = client.claim("", 0).await.unwrap();
    client.gate.close();
    soon(async {
        while !closed(port).await {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(server.client().await.claim("", port).await, Some(port));
}

/// L1, L2: a client that is back before the server has noticed that it was gone has its port at once, and no caller is
/// turned away meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_takes_its_own_port_over_without_a_gap() {
    let server = Server::start().await;
    let mut old = server.client().await;
    let port = old.claim("", 0).await.unwrap();
    assert!(answered(&mut old, port).await);

    let calling = tokio::spawn(async move {
        for _ in 0..300 {
            // One that the old connection has taken may be reset with it before `connect` is back; without a listener it is refused.
            if let Err(error) = TcpStream::connect(("127.0.0.1", port)).await {
                assert_eq!(
                    error.kind(),
                    ErrorKind::ConnectionReset,
                    "there is always a listener"
                );
            }
        }
    });
    let mut new = server.client().await;
    assert_eq!(new.claim("", port).await, Some(port));
    // Late words of the old connection no longer concern the claim.
    assert!(!old.cancel("", port).await);
    old.gate.close();
    calling.await.unwrap();
    while old.callers.recv().await.is_some() {}
    soon(async {
        while new.ask::<Report>(SUBSYSTEM).await.claims.len() != 1 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let mut last = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    last.write_all(b"last").await.unwrap();
    last.shutdown().await.unwrap();
    soon(async {
        loop {
            let mut caller = new.caller().await;
            if read_to_end(caller.stream.reader.as_mut()).await == Ok(b"last".to_vec()) {
                break;
            }
        }
    })
    .await;
}

/// A connection that is to take the place of another one, and is lost before its client makes use of it: the ports that it has taken over, and
/// the streams of callers, are the older one's again.
#[tokio::test]
async fn a_replacement_that_fails_leaves_everything_to_the_older_connection() {
    let server = Server::start().await;
    let mut old = server.client().await;
    let port = old.claim("", 0).await.unwrap();
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut caller = old.caller().await;

    let new = server.next_client(&old).await;
    assert_eq!(new.claim("", port).await, Some(port));
    // The callers' streams go to the newest.
    soon(async {
        while new.link.legs.is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    new.gate.close();
    tcp.write_all(b"after").await.unwrap();
    let heard = soon(caller.stream.reader.read()).await;
    assert_eq!(heard.unwrap().unwrap(), "after");
    assert!(answered(&mut old, port).await);

    old.gate.close();
    soon(async {
        while !closed(port).await {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// I7: a second developer is told who has the port, and gets it when it is free.
#[tokio::test]
async fn another_client_is_refused_and_told_who_holds_the_port() {
    let server = Server::start().await;
    let mine = server.client().await;
    let port = mine.claim("", 0).await.unwrap();
    let other = server.client_with(&server.colleague("anna@laptop")).await;
    assert_eq!(other.claim("", port).await, None);
    assert_eq!(other.claim("127.0.0.1", port).await, None);

    let report: Report = other.ask(SUBSYSTEM).await;
    let [claim] = report.claims.as_slice() else {
        panic!("{report:?}");
    };
    assert_eq!(
        (claim.port, claim.comment.as_str(), claim.yours),
        (port, "me@laptop", false)
    );
    let fingerprint = server.key.public_key().fingerprint(Default::default());
    assert_eq!(claim.fingerprint, fingerprint.to_string());
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!(claim.since <= now && now - claim.since < SOON.as_secs());
    let refusals: Vec<_> = report
        .refusals
        .iter()
        .map(|r| (r.address.as_str(), r.port, &r.reason))
        .collect();
    let held = &RefusalReason::Held;
    assert_eq!(refusals, [("", port, held), ("127.0.0.1", port, held)]);

    let report: Report = mine.ask(SUBSYSTEM).await;
    assert!(report.refusals.is_empty() && report.claims[0].yours);
    assert!(mine.cancel("", port).await);
    assert_eq!(other.claim("", port).await, Some(port));
}

/// I4: a port that another process of the pod has.
#[tokio::test]
async fn a_port_in_use_is_refused_with_its_reason() {
    let server = Server::start().await;
    let client = server.client().await;
    let (port, _listener) = target().await;
    assert_eq!(client.claim("", port).await, None);
    assert_eq!(
        client.claim("", server.address.port()).await,
        None,
        "the server's own"
    );
    assert_eq!(client.claim("example.com", 0).await, None);
    let report: Report = client.ask(SUBSYSTEM).await;
    let reasons: Vec<_> = report
        .refusals
        .into_iter()
        .map(|refusal| refusal.reason)
        .collect();
    assert_eq!(reasons[..2], [RefusalReason::InUse, RefusalReason::InUse]);
    assert!(matches!(reasons[2], RefusalReason::Other(_)), "{reasons:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i6_many_callers_at_once_are_all_served() {
    const CALLERS: usize = 400;
    let server = Server::start().await;
    let mut client = server.client().await;
    let port = client.claim("", 0).await.unwrap();
    let calls: Vec<_> = (0..CALLERS)
        .map(|n| {
            tokio::spawn(async move {
                let mut tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                tcp.write_all(&n.to_be_bytes()).await.unwrap();
                tcp.shutdown().await.unwrap();
                let mut answer = vec![];
                tcp.read_to_end(&mut answer).await.unwrap();
                assert_eq!(answer, n.to_be_bytes());
            })
        })
        .collect();
    for _ in 0..CALLERS {
        let mut caller = client.caller().await;
        tokio::spawn(async move {
            let bytes = read_to_end(caller.stream.reader.as_mut()).await.unwrap();
            caller.stream.writer.write(bytes.into()).await.unwrap();
            caller.stream.writer.finish().await.unwrap();
        });
    }
    for call in calls {
        soon(call).await.unwrap();
    }
}

/// The listener of a claim serves nobody once its client is gone, and the port is another process's to have.
#[tokio::test]
async fn a_cancelled_port_can_be_bound_by_anybody() {
    let server = Server::start().await;
    let client = server.client().await;
    let port = client.claim("", 0).await.unwrap();
    assert!(client.cancel("", port).await);
    TcpListener::bind(("0.0.0.0", port)).await.unwrap();
}
