//! Connections from within the pod.

use crate::harness::{Client, SOON, Server, free_port, read_to_end, soon, target};
use bytes::Bytes;
use std::io::ErrorKind;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tunnel::arrivals::{self, Farewell};
use tunnel::copy;
use tunnel::dial::DialError;
use tunnel::label::{self, Label};
use tunnel::stream::{Position, Reset, Stream};

async fn connected(client: &Client) -> (Stream, TcpStream) {
    let (_, listener) = target().await;
    client.reach("127.0.0.1", &listener).await
}

/// O7: the greeting of a target that speaks first is never lost, on a connection's first channel least of all.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_target_that_speaks_first_is_heard() {
    const SESSIONS: usize = 25;
    const STREAMS: usize = 8;
    let server = Server::start().await;
    let (port, listener) = target().await;
    let greeting = tokio::spawn(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tcp.write_all(b"220 ready\r\n").await.unwrap();
        }
    });
    let mut heard = 0;
    for _ in 0..SESSIONS {
        let client = server.client().await;
        let streams = (0..STREAMS).map(|_| async {
            let mut stream = client.open("127.0.0.1", port).await.unwrap();
            soon(read_to_end(stream.reader.as_mut())).await.unwrap()
        });
        for answer in futures::future::join_all(streams).await {
            assert_eq!(answer, b"220 ready\r\n");
            heard += 1;
        }
    }
    assert_eq!(heard, SESSIONS * STREAMS);
    greeting.abort();
}

/// Each direction ends on its own, and what follows the end of the other arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn o8_each_direction_ends_on_its_own() {
    const AFTER: usize = 16 << 20;
    let server = Server::start().await;
    let client = server.client().await;

    let (mut stream, mut tcp) = connected(&client).await;
    stream
        .writer
        .write(Bytes::from_static(b"request"))
        .await
        .unwrap();
    stream.writer.finish().await.unwrap();
    let answering = tokio::spawn(async move {
        let mut request = vec![];
        tcp.read_to_end(&mut request).await.unwrap();
        tcp.write_all(&vec![7; AFTER]).await.unwrap();
        request
    });
    assert_eq!(
        read_to_end(stream.reader.as_mut()).await.unwrap().len(),
        AFTER
    );
    assert_eq!(answering.await.unwrap(), b"request");

    let (mut stream, mut tcp) = connected(&client).await;
    tcp.write_all(b"bye").await.unwrap();
    tcp.shutdown().await.unwrap();
    assert_eq!(read_to_end(stream.reader.as_mut()).await.unwrap(), b"bye");
    let reading = tokio::spawn(async move {
        let mut all = vec![];
        tcp.read_to_end(&mut all).await.unwrap();
        all.len()
    });
    for _ in 0..AFTER / (32 << 10) {
        stream.writer.write(vec![7; 32 << 10].into()).await.unwrap();
    }
    stream.writer.finish().await.unwrap();
    assert_eq!(reading.await.unwrap(), AFTER);
}

#[tokio::test]
async fn o9_refusals_are_told_apart() {
    let server = Server::start().await;
    let client = server.client().await;
    let refused = client.open("127.0.0.1", free_port().await).await;
    assert_eq!(refused.unwrap_err(), DialError::Refused);
    // Nobody serves DNS on that port.
    let failed = client.open("unknown.example", 80).await;
    assert_eq!(failed.unwrap_err(), DialError::Nameserver);
    let unknown = client.open("", 80).await;
    assert_eq!(unknown.unwrap_err(), DialError::UnknownName);
    let unroutable = client.open("255.255.255.255", 80).await;
    assert_eq!(unroutable.unwrap_err(), DialError::Unreachable);
}

/// A target that does not answer costs nobody else anything.
#[tokio::test]
async fn o10_a_silent_target_delays_nobody_else() {
    let server = Server::start().await;
    let client = server.client().await;
    // A listener whose queue is full answers no more.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    socket.listen(0).unwrap();
    let silent = socket.local_addr().unwrap().as_socket().unwrap();
    let mut queued = vec![];
    while let Ok(tcp) = timeout(Duration::from_millis(300), TcpStream::connect(silent)).await {
        queued.push(tcp.unwrap());
    }
    let others = async {
        for _ in 0..20 {
            let (_stream, _tcp) = timeout(Duration::from_secs(5), connected(&client))
                .await
                .unwrap();
        }
    };
    tokio::select! {
        answer = client.open("127.0.0.1", silent.port()) => panic!("{answer:?}"),
        () = others => {}
    }
}

/// The server itself is no target, by whatever address. What others claim in the pod is, as for every program there.
#[tokio::test]
async fn o18_the_server_itself_is_refused() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for host in [
        "127.0.0.1",
        "localhost",
        "alias.example",
        "both.example",
        "0.0.0.0",
        "::ffff:127.0.0.1",
    ] {
        let refused = timeout(SOON, client.open(host, server.address.port())).await;
        assert_eq!(refused.unwrap().unwrap_err(), DialError::Loop, "{host}");
    }
    let claimed = client.claim("", 0).await.unwrap();
    for host in ["127.0.0.1", "::1", "127.9.9.9", "0.0.0.0"] {
        let mut stream = client.open(host, claimed).await.unwrap();
        let mut caller = client.caller().await;
        caller.stream.writer.write("hello".into()).await.unwrap();
        caller.stream.writer.finish().await.unwrap();
        let said = soon(read_to_end(stream.reader.as_mut())).await;
        assert_eq!(said.unwrap(), b"hello", "{host}");
    }
    assert!(client.cancel("", claimed).await);
    let refused = client.open("127.0.0.1", claimed).await;
    assert_eq!(refused.unwrap_err(), DialError::Refused, "no longer ours");
}

#[tokio::test]
async fn a_reset_goes_through_both_ways() {
    let server = Server::start().await;
    let client = server.client().await;

    let (mut stream, tcp) = connected(&client).await;
    copy::reset(&tcp);
    drop(tcp);
    assert_eq!(soon(stream.reader.read()).await, Err(Reset));

    let (stream, mut tcp) = connected(&client).await;
    drop(stream);
    let error = soon(tcp.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// A client that is gone after its last word is noticed: the target would send for ever otherwise.
#[tokio::test]
async fn a_client_that_is_gone_after_its_end_is_noticed() {
    let server = Server::start().await;
    let client = server.client().await;
    let (mut stream, mut tcp) = connected(&client).await;
    stream.writer.finish().await.unwrap();
    assert_eq!(soon(tcp.read(&mut [0])).await.unwrap(), 0);
    drop(stream);
    let sending = async { while tcp.write_all(&[7; 32 << 10]).await.is_ok() {} };
    soon(sending).await;
}

/// A client that leaves for good resets even a connection whose target does not read.
#[tokio::test]
async fn a_client_that_leaves_resets_a_target_that_does_not_read() {
    let server = Server::start().await;
    let client = server.client().await;
    let channel = client.subsystem_channel(arrivals::SUBSYSTEM).await.unwrap();
    let farewell = Farewell::default();
    tokio::spawn(arrivals::run(
        channel,
        client.link.clone(),
        farewell.clone(),
    ));
    let (mut stream, tcp) = connected(&client).await;
    let chunk = Bytes::from(vec![7; 32 << 10]);
    // Until the target's buffers are full, and the server is waiting for them.
    let writing = async { while stream.writer.write(chunk.clone()).await.is_ok() {} };
    assert!(
        timeout(Duration::from_secs(1), writing).await.is_err(),
        "endless buffers"
    );
    farewell.say().await;
    client.leave().await;
    let error = soon(async {
        loop {
            match socket2::SockRef::from(&tcp).take_error().unwrap() {
                Some(error) => return error,
                None => sleep(Duration::from_millis(20)).await,
            }
        }
    });
    assert_eq!(error.await.kind(), ErrorKind::ConnectionReset);
}

/// O15: IPv6, and addresses of IPv4 in the clothes of IPv6.
#[tokio::test]
async fn ipv6_targets_are_reached() {
    let server = Server::start().await;
    let client = server.client().await;
    let v6 = TcpListener::bind("[::1]:0").await.unwrap();
    for host in ["::1", "[::1]"] {
        client.reach(host, &v6).await;
    }
    let (_, v4) = target().await;
    client.reach("::ffff:127.0.0.1", &v4).await;
}

/// A stream can be taken up again by the client that opened it alone: not with another key, nor in another run with the same key.
#[tokio::test]
async fn ids_of_other_clients_mean_nothing() {
    let server = Server::start().await;
    let (port, listener) = target().await;
    let open = async |client: &Client, leg: u32, resumed: bool| {
        let position = Position {
            received: 0,
            limit: 1 << 20,
        };
        let label: Label = "stream=00000000000000000000000000000001 leg=0 received=0 limit=0"
            .parse()
            .unwrap();
        let label = Label {
            leg,
            position,
            resumed,
            ..label
        };
        let from = label::join("127.0.0.1", &label);
        let opening =
            client
                .handle
                .channel_open_direct_tcpip("127.0.0.1", u32::from(port), from, 1);
        soon(opening).await
    };
    let mine = server.client().await;
    let _channel = open(&mine, 0, false).await.unwrap();
    let (mut tcp, _) = soon(listener.accept()).await.unwrap();
    let colleague = server.client_with(&server.colleague("colleague")).await;
    for other in [colleague, server.client().await] {
        match open(&other, 1, true).await.unwrap_err() {
            russh::Error::ChannelOpenFailure(failure) => {
                assert_eq!(DialError::from_failure(&failure), DialError::Forgotten);
            }
            error => panic!("{error}"),
        }
    }
    // It may itself, and gets what was sent meanwhile.
    tcp.write_all(b"for me").await.unwrap();
    let mut channel = open(&mine, 1, true).await.unwrap();
    loop {
        if let russh::ChannelMsg::Data { data } = soon(channel.wait()).await.unwrap() {
            break assert_eq!(&data[..], b"for me");
        }
    }
}
