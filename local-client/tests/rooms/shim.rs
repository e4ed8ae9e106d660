//! The nameserver that the app sees, over UDP and TCP.

use crate::fake::{Fake, RESOLV_CONF};
use crate::network::{Network, query};
use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{RData, RecordType};
use local_client::dns::in_place::InPlace;
use local_client::dns::resolv_conf;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

async fn send(tcp: &mut TcpStream, message: &[u8]) {
    let length = u16::try_from(message.len()).unwrap();
    tcp.write_u16(length).await.unwrap();
    tcp.write_all(message).await.unwrap();
}

async fn receive(tcp: &mut TcpStream) -> Vec<u8> {
    let length = tcp.read_u16().await.unwrap();
    let mut message = vec![0; length.into()];
    tcp.read_exact(&mut message).await.unwrap();
    message
}

/// A pod whose nameserver has an answer of about 2 KiB.
fn with_long_answer() -> std::sync::Arc<Fake> {
    let pod = Fake::new();
    for n in 0..10u8 {
        let text = String::from_utf8(vec![b'a' + n; 200]).unwrap();
        pod.record("long.example.com", RData::TXT(TXT::new(vec![text])));
    }
    pod
}

/// D1: answers pass byte for byte, by UDP and by TCP.
#[tokio::test]
async fn answers_are_the_nameservers_own() {
    let pod = Fake::new();
    pod.address("example.com", "192.0.2.1");
    let network = Network::plain(&pod).await;
    let mut tcp = TcpStream::connect(network.tcp).await.unwrap();
    for (owner, record_type) in [
        ("example.com", RecordType::A),
        ("example.com", RecordType::AAAA),
        ("gone.example.com", RecordType::A),
    ] {
        let query = query(owner, record_type);
        assert_eq!(network.exchange(&query).await, pod.answer(&query));
        send(&mut tcp, &query).await;
        assert_eq!(receive(&mut tcp).await, pod.answer(&query));
    }
}

/// D3: an answer too long for a datagram is cut, then whole by TCP.
#[tokio::test]
async fn a_long_answer_is_truncated_then_whole_by_tcp() {
    let pod = with_long_answer();
    let network = Network::plain(&pod).await;
    let query = query("long.example.com", RecordType::TXT);
    let answer = network.exchange(&query).await;
    assert!(answer.len() <= 512);
    let answer = Message::from_vec(&answer).unwrap();
    assert!(answer.metadata.truncation);
    let whole = Message::from_vec(&pod.answer(&query)).unwrap();
    assert_eq!(answer.answers, whole.answers[..2], "what fits");
    assert_eq!(answer.queries, Message::from_vec(&query).unwrap().queries);

    let mut tcp = TcpStream::connect(network.tcp).await.unwrap();
    send(&mut tcp, &query).await;
    assert_eq!(receive(&mut tcp).await, pod.answer(&query));
}

/// D3: who takes longer datagrams gets them.
#[tokio::test]
async fn edns_tells_how_long_a_datagram_may_be() {
    let pod = with_long_answer();
    let network = Network::plain(&pod).await;
    for (size, truncated) in [(1232, true), (4096, false)] {
        let mut query = Message::from_vec(&query("long.example.com", RecordType::TXT)).unwrap();
        let mut edns = Edns::new();
        edns.set_max_payload(size);
        query.set_edns(edns);
        let answer = network.exchange(&query.to_vec().unwrap()).await;
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.metadata.truncation, truncated, "{size}");
    }
}

/// Several queries on one connection: a slow one does not hold the others back.
#[tokio::test]
async fn queries_on_one_connection_are_answered_as_they_come() {
    let pod = Fake::new();
    let network = Network::plain(&pod).await;
    let mut tcp = TcpStream::connect(network.tcp).await.unwrap();
    let slow = query("slow.example.com", RecordType::A);
    let quick = query("quick.example.com", RecordType::A);
    send(&mut tcp, &slow).await;
    send(&mut tcp, &quick).await;
    assert_eq!(receive(&mut tcp).await, pod.answer(&quick));
    // What was asked before the app closed its direction is answered. The exchange is there for the shim to see the end.
    tcp.shutdown().await.unwrap();
    network.exchange(&quick).await;
    pod.release.notify_one();
    assert_eq!(receive(&mut tcp).await, pod.answer(&slow));
    assert_eq!(tcp.read(&mut [0]).await.unwrap(), 0);
}

/// A query that arrives byte by byte.
#[tokio::test]
async fn a_query_in_pieces_is_understood() {
    let pod = Fake::new();
    let network = Network::plain(&pod).await;
    let mut tcp = TcpStream::connect(network.tcp).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let query = query("example.com", RecordType::A);
    tcp.write_u8(0).await.unwrap();
    tcp.write_u8(u8::try_from(query.len()).unwrap())
        .await
        .unwrap();
    for byte in &query {
        tcp.write_u8(*byte).await.unwrap();
    }
    assert_eq!(receive(&mut tcp).await, pod.answer(&query));
}

/// A connection that says nothing is closed after its time.
#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    let pod = Fake::new();
    let network = Network::plain(&pod).await;
    let start = tokio::time::Instant::now();
    let mut tcp = TcpStream::connect(network.tcp).await.unwrap();
    let end = timeout(Duration::from_secs(60), tcp.read(&mut [0])).await;
    assert_eq!(end.expect("an end").unwrap(), 0);
    assert_eq!(start.elapsed(), Duration::from_secs(10));
}

/// D5: nameservers that do not answer are a failure, and hold nothing else back.
#[tokio::test]
async fn a_failing_nameserver_is_a_servfail() {
    let pod = Fake::new();
    let network = Network::plain(&pod).await;
    pod.set_link_down(true);
    let query = query("example.com", RecordType::A);
    let answer = Message::from_vec(&network.exchange(&query).await).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(
        answer.metadata.id,
        Message::from_vec(&query).unwrap().metadata.id
    );
}

/// What is no query is told so, and hurts nobody.
#[tokio::test]
async fn garbage_is_refused() {
    let pod = Fake::new();
    let network = Network::plain(&pod).await;
    let mut garbage = vec![0; 100];
    garbage[..6].copy_from_slice(&[0xab, 0xcd, 1, 0, 0, 9]);
    let answer = Message::from_vec(&network.exchange(&garbage).await).unwrap();
    assert_eq!(answer.metadata.id, 0xabcd);
    assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
    let mut long = query("example.com", RecordType::A);
    long[11] = 1;
    long.resize(60_000, 0xff);
    let answer = Message::from_vec(&network.exchange(&long).await).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
    let query = query("example.com", RecordType::A);
    assert_eq!(network.exchange(&query).await, pod.answer(&query));
}

/// The end does not wait for a query that is under way.
#[tokio::test]
async fn the_end_waits_for_no_query() {
    let pod = Fake::new();
    let network = Network::plain(&pod).await;
    let mut tcp = TcpStream::connect(network.tcp).await.unwrap();
    send(&mut tcp, &query("slow.example.com", RecordType::A)).await;
    pod.held.notified().await;
    network.shutdown.cancel();
    network.tracker.close();
    let end = timeout(Duration::from_secs(5), network.tracker.wait()).await;
    end.expect("an end before any time limit");
}

/// The file is written in place, as Docker's bind mount demands, and put back at the end.
#[test]
fn resolv_conf_is_written_in_place_and_restored() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    std::fs::write(&path, "nameserver 127.0.0.11\n").unwrap();
    let inode = std::fs::metadata(&path).unwrap().ino();
    let edit =
        |_: &[u8]| resolv_conf::with_nameserver(RESOLV_CONF.as_bytes(), Ipv4Addr::LOCALHOST.into());
    let changed = InPlace::edit(&path, edit).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let made = "nameserver 127.0.0.1\nsearch ns.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n";
    assert!(text.starts_with(made), "{text}");
    let comments = text.lines().skip(3);
    assert!(comments.clone().all(|line| line.starts_with('#')), "{text}");
    assert!(
        comments
            .clone()
            .any(|line| line == "#nameserver 127.0.0.11")
    );
    changed.restore();
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        "nameserver 127.0.0.11\n"
    );
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
}
