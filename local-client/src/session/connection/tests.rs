//! A server, or a link, that goes silent. Time is paused: where nothing can happen but a timeout, that is what happens.

use super::*;
use crate::session::fake::{Manners, PIPE, client, connection, way};
use tokio::io::duplex;
use tokio::time::sleep;
use tunnel::dial::DialError;

/// Only what hangs takes this long.
const HANGS: Duration = Duration::from_secs(600);

/// How long `ending` takes.
async fn over_after(ending: impl Future<Output = ()>) -> Duration {
    let before = Instant::now();
    timeout(HANGS, ending).await.expect("it ends");
    before.elapsed()
}

/// What the attempt to make a connection ends with, and when.
async fn failed(transport: Transport) -> (String, Duration) {
    let before = Instant::now();
    let client = client();
    let establishing = timeout(HANGS, Connection::establish(transport, &client));
    match establishing.await.expect("it gives up").err().unwrap() {
        DialFailure::Passing(Error::Link(message)) => (message, before.elapsed()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_come_to_its_end_is_given_up() {
    let (near, _silent) = duplex(PIPE);
    let (transport, _) = way(Manners::default());
    let silent = Transport {
        stream: Box::new(near),
        ..transport
    };
    let (message, waited) = failed(silent).await;
    let expected = "the pod did not complete the SSH handshake within 10 s";
    assert_eq!((message.as_str(), waited), (expected, HANDSHAKE_TIMEOUT));
}

#[tokio::test(start_paused = true)]
async fn a_subsystem_that_is_not_started_is_given_up() {
    for (ignored, what) in [
        (facts::SUBSYSTEM, "its facts"),
        ("dns", "DNS"),
        (arrivals::SUBSYSTEM, "reports of arrivals"),
    ] {
        let (transport, _) = way(Manners {
            ignored,
            ..Manners::default()
        });
        let (message, waited) = failed(transport).await;
        let expected = format!("the link to the pod was lost while asking for {what}");
        assert_eq!((message, waited), (expected, SUBSYSTEM_TIMEOUT));
    }
}

#[tokio::test(start_paused = true)]
async fn a_subsystem_that_does_not_answer_is_given_up() {
    let (transport, _) = way(Manners {
        mute: facts::SUBSYSTEM,
        ..Manners::default()
    });
    let (message, waited) = failed(transport).await;
    let expected = "the link to the pod was lost while asking for its facts";
    assert_eq!((message.as_str(), waited), (expected, SUBSYSTEM_TIMEOUT));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_connection_that_is_not_established() {
    let client = client();
    let _callers = client.ports.add(Port::Tcp(80));
    let mute = Manners {
        mute: facts::SUBSYSTEM,
        ..Manners::default()
    };
    // The port is refused to the end, or it is asked for no longer, or that comes before.
    for (manners, limit) in [
        (Manners::default(), HANGS),
        (Manners::default(), Duration::from_secs(1)),
        (mute, HANGS),
    ] {
        let establishing = Connection::establish(way(manners).0, &client);
        let established = timeout(limit, establishing).await;
        assert!(!matches!(established, Ok(Ok(_))));
        // The session has one for its callers.
        let over = async {
            while Arc::strong_count(&client.acceptor) > 1 {
                sleep(Duration::from_secs(1)).await;
            }
        };
        timeout(HANGS, over).await.expect("it ends");
    }
}

#[tokio::test(start_paused = true)]
async fn streams_that_do_not_move_do_not_keep_a_connection_that_was_replaced() {
    let (connection, _) = connection().await;
    let _leg = connection.link.legs.token();
    assert_eq!(over_after(connection.retire()).await, RETIRE_TIMEOUT);
    assert!(connection.ended.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn ports_are_not_given_back_over_a_dead_link() {
    let (connection, frozen) = connection().await;
    let ports = Ports::default();
    let _callers = ports.add(Port::Tcp(80));
    frozen.cancel();
    assert_eq!(over_after(connection.leave(&ports)).await, CLOSE_TIMEOUT);
    assert!(connection.ended.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_link_does_not_take_is_not_waited_for() {
    let (connection, frozen) = connection().await;
    frozen.cancel();
    while connection.link.gate.carried() < 4 * PIPE as u64 {
        connection.handle.send_keepalive(true).await.unwrap();
    }
    assert_eq!(over_after(connection.close()).await, CLOSE_TIMEOUT);
    assert!(!connection.tracker.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_opens_at_a_plain_server_is_waited_for() {
    const LIMIT: Duration = Duration::from_secs(20);
    let (transport, _) = way(Manners {
        plain: true,
        ..Manners::default()
    });
    let connection = Connection::establish(transport, &client()).await;
    let connection = Arc::new(connection.unwrap());
    let target = Target {
        host: "thing1".into(),
        port: 80,
    };
    let retiring = async {
        tokio::task::yield_now().await;
        over_after(connection.retire()).await
    };
    let opening = plain::open(&connection, &target, LIMIT);
    let (opened, waited) = tokio::join!(opening, retiring);
    assert_eq!(opened.unwrap_err(), DialError::TimedOut);
    assert!(waited >= LIMIT, "{waited:?}");
}
