//! The subsystem "arrivals" of one end; the test is the other one.

use crate::harness::{Ends, Server};
use crate::plain::echo;
use russh::{Channel, ChannelMsg, client};
use tunnel::arrivals::SUBSYSTEM;

async fn ends() -> (Server, Ends, Channel<client::Msg>) {
    let server = Server::new(echo);
    let ends = Ends::to(&server).await;
    let channel = ends.channel(SUBSYSTEM).await;
    (server, ends, channel)
}

#[tokio::test]
async fn what_arrives_is_reported() {
    let (_server, ends, mut arrivals) = ends().await;
    let mut stream = ends.open().await;
    stream.writer.write(vec![7; 4096].into()).await.unwrap();
    loop {
        if let ChannelMsg::Data { data } = arrivals.wait().await.unwrap() {
            let total = u64::from_be_bytes(data[..].try_into().unwrap());
            break assert!(total > 4096, "{total}");
        }
    }
}

#[tokio::test]
async fn an_end_that_leaves_is_known_not_to_come_back() {
    let (_server, ends, arrivals) = ends().await;
    assert!(!ends.far.left.is_cancelled());
    arrivals.eof().await.unwrap();
    ends.far.left.cancelled().await;
}

#[tokio::test]
async fn an_end_that_leaves_says_so() {
    let (server, ends, mut arrivals) = ends().await;
    // It is being served.
    let mut stream = ends.open().await;
    stream.writer.write(vec![7; 4096].into()).await.unwrap();
    arrivals.wait().await.unwrap();
    server.farewell.say().await;
    while !matches!(arrivals.wait().await.unwrap(), ChannelMsg::Eof) {}
}
