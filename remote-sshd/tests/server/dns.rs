//! The subsystem `dns`, and names as targets.

use crate::harness::{Client, Server, soon, target};
use crate::nameserver::{Manner, Nameserver, free_port_for};
use bytes::Bytes;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::Instant;
use tunnel::dial::DialError;
use tunnel::frames::{self, FrameReader};
use tunnel::stream::Writer;

/// A server with nameservers at 127.0.1.1, 127.0.1.2, ...; `None` where nobody listens.
async fn start(manners: &[Option<Manner>], names: &[(&str, &str)]) -> (Server, Vec<Nameserver>) {
    let addresses: Vec<IpAddr> = (1..=manners.len())
        .map(|n| format!("127.0.1.{n}").parse().unwrap())
        .collect();
    let port = free_port_for(&addresses).await;
    let mut nameservers = vec![];
    let mut conf =
        "search ns.svc.cluster.local cluster.local\noptions ndots:2 timeout:1 attempts:2\n"
            .to_owned();
    for (address, manner) in addresses.iter().zip(manners) {
        conf += &format!("nameserver {address}\n");
        if let Some(manner) = manner {
            nameservers.push(Nameserver::start((*address, port).into(), *manner, names).await);
        }
    }
    (
        Server::start_with_nameservers(&conf, port).await,
        nameservers,
    )
}

struct Dns {
    reader: FrameReader,
    writer: Box<dyn Writer>,
    _client: Client,
}

impl Dns {
    async fn of(server: &Server) -> Dns {
        let client = server.client().await;
        let stream = client.subsystem("dns").await.unwrap();
        Dns {
            reader: FrameReader::new(stream.reader),
            writer: stream.writer,
            _client: client,
        }
    }

    async fn send(&mut self, query: &Message) {
        frames::send(self.writer.as_mut(), &query.to_vec().unwrap())
            .await
            .unwrap();
    }

    async fn receive(&mut self) -> Message {
        let answer = soon(self.reader.next()).await.unwrap().unwrap();
        Message::from_vec(&answer).unwrap()
    }

    async fn ask(&mut self, id: u16, name: &str, kind: RecordType) -> Message {
        self.send(&query(id, name, kind)).await;
        self.receive().await
    }
}

fn query(id: u16, name: &str, kind: RecordType) -> Message {
    let mut query = Message::new(id, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    query
}

const THING1: (&str, &str) = ("thing1.ns.svc.cluster.local.", "127.0.0.1");

/// D1: the cluster's own answers.
#[tokio::test]
async fn answers_come_back_as_they_are() {
    let (server, nameservers) = start(&[Some(Manner::Good)], &[THING1]).await;
    let mut dns = Dns::of(&server).await;
    let answer = dns.ask(77, THING1.0, RecordType::A).await;
    assert_eq!((answer.metadata.id, answer.answers.len()), (77, 1));
    assert_eq!(answer.queries[0].name().to_string(), THING1.0);
    let none = dns.ask(78, THING1.0, RecordType::SRV).await;
    assert_eq!(
        (none.metadata.response_code, none.answers.len()),
        (ResponseCode::NoError, 0)
    );
    let unknown = dns.ask(79, "unknown.", RecordType::A).await;
    assert_eq!(unknown.metadata.response_code, ResponseCode::NXDomain);

    let mut with_edns = query(80, "a.txt.", RecordType::TXT);
    let mut edns = Edns::new();
    edns.set_max_payload(4321);
    with_edns.set_edns(edns);
    dns.send(&with_edns).await;
    assert_eq!(dns.receive().await.answers.len(), 1);
    let asked = nameservers[0].asked.lock().unwrap();
    assert_eq!(asked.len(), 4);
    assert_eq!(
        asked[3].edns.as_ref().unwrap().max_payload(),
        4321,
        "EDNS passes as it is"
    );
    let ids: Vec<u16> = asked.iter().map(|q| q.metadata.id).collect();
    assert_ne!(
        ids,
        [77, 78, 79, 80],
        "the client's ids are not those on the wire"
    );
}

/// Many queries at once, each with its own answer, and an orderly end behind the last.
#[tokio::test]
async fn many_queries_are_under_way_at_once() {
    const QUERIES: u16 = 1000;
    let (server, _nameservers) = start(&[Some(Manner::Good)], &[]).await;
    let Dns {
        mut reader,
        mut writer,
        _client,
    } = Dns::of(&server).await;
    let asking = tokio::spawn(async move {
        for id in 0..QUERIES {
            let query = query(id, &format!("n{id}.txt."), RecordType::TXT);
            frames::send(writer.as_mut(), &query.to_vec().unwrap())
                .await
                .unwrap();
        }
        writer.finish().await.unwrap();
    });
    let mut answered = HashMap::new();
    while let Some(answer) = soon(reader.next()).await.unwrap() {
        let answer = Message::from_vec(&answer).unwrap();
        let text = answer.answers[0].data.to_string();
        assert!(
            text.contains(&format!("n{}.txt.", answer.metadata.id)),
            "{text}"
        );
        *answered.entry(answer.metadata.id).or_insert(0) += 1;
    }
    asking.await.unwrap();
    assert_eq!(answered.len(), usize::from(QUERIES));
    assert!(answered.values().all(|n| *n == 1));
}

/// D3: what does not fit into a datagram is fetched over TCP.
#[tokio::test]
async fn a_truncated_answer_is_asked_for_over_tcp() {
    let (server, nameservers) = start(&[Some(Manner::Long)], &[]).await;
    let mut dns = Dns::of(&server).await;
    let answer = dns.ask(5, "long.txt.", RecordType::TXT).await;
    assert!(!answer.metadata.truncation);
    assert_eq!((answer.metadata.id, answer.answers.len()), (5, 201));
    assert_eq!(nameservers[0].times_asked(), 1);
}

/// D5: a nameserver on whose port nobody listens is passed over at once, a silent one when its time is up.
#[tokio::test]
async fn a_dead_nameserver_is_passed_over() {
    let (server, _nameservers) = start(&[None, Some(Manner::Good)], &[]).await;
    let started = Instant::now();
    let answer = Dns::of(&server)
        .await
        .ask(1, "a.txt.", RecordType::TXT)
        .await;
    assert_eq!(answer.answers.len(), 1);
    assert!(started.elapsed() < Duration::from_secs(1));

    let (server, nameservers) = start(&[Some(Manner::Silent), Some(Manner::Good)], &[]).await;
    let answer = Dns::of(&server)
        .await
        .ask(1, "a.txt.", RecordType::TXT)
        .await;
    assert_eq!(answer.answers.len(), 1);
    assert_eq!(nameservers[0].times_asked(), 1);
}

#[tokio::test]
async fn a_failing_nameserver_is_not_the_last_word() {
    let (server, _nameservers) = start(&[Some(Manner::Failing), Some(Manner::Good)], &[]).await;
    let answer = Dns::of(&server)
        .await
        .ask(1, "a.txt.", RecordType::TXT)
        .await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);

    let (server, nameservers) = start(&[Some(Manner::Failing), None], &[]).await;
    let answer = Dns::of(&server)
        .await
        .ask(1, "a.txt.", RecordType::TXT)
        .await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(nameservers[0].times_asked(), 1);
}

/// D5: no nameserver at all is SERVFAIL, and delays nobody else.
#[tokio::test]
async fn a_query_without_an_answer_fails_in_time() {
    let (server, nameservers) = start(&[Some(Manner::Silent)], &[]).await;
    let mut dns = Dns::of(&server).await;
    let started = Instant::now();
    for id in 0..100 {
        dns.send(&query(id, "a.txt.", RecordType::TXT)).await;
    }
    for _ in 0..100 {
        let answer = dns.receive().await;
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(answer.queries.len(), 1);
    }
    let two_attempts = Duration::from_secs(2);
    assert!(started.elapsed() >= two_attempts && started.elapsed() < two_attempts * 3);
    assert_eq!(nameservers[0].times_asked(), 200);
}

#[tokio::test]
async fn answers_to_other_questions_are_ignored() {
    let (server, _nameservers) = start(&[Some(Manner::Noisy)], &[THING1]).await;
    let answer = Dns::of(&server).await.ask(9, THING1.0, RecordType::A).await;
    assert_eq!((answer.metadata.id, answer.answers.len()), (9, 1));
    assert_eq!(answer.queries[0].name().to_string(), THING1.0);
}

#[tokio::test]
async fn rubbish_ends_nothing() {
    let (server, _nameservers) = start(&[Some(Manner::Good)], &[]).await;
    let mut dns = Dns::of(&server).await;
    for rubbish in [&b""[..], &[0; 11]] {
        frames::send(dns.writer.as_mut(), rubbish).await.unwrap();
    }
    assert_eq!(dns.ask(1, "a.txt.", RecordType::TXT).await.answers.len(), 1);
    dns.writer
        .write(Bytes::from_static(&[0, 9, 1]))
        .await
        .unwrap();
    dns.writer.finish().await.unwrap();
    assert!(!matches!(soon(dns.reader.next()).await, Ok(Some(_))));
}

#[tokio::test]
async fn a_changed_resolv_conf_is_noticed() {
    let (server, _nameservers) = start(&[Some(Manner::Failing), Some(Manner::Good)], &[]).await;
    let mut dns = Dns::of(&server).await;
    std::fs::write(&server.files.resolv_conf, "nameserver 127.0.1.1\n").unwrap();
    let answer = dns.ask(1, "a.txt.", RecordType::TXT).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    std::fs::write(&server.files.resolv_conf, "nameserver 127.0.1.2\n").unwrap();
    let answer = dns.ask(1, "a.txt.", RecordType::TXT).await;
    assert_eq!(answer.answers.len(), 1);
}

/// O1, D2: targets are named as in the pod.
#[tokio::test]
async fn targets_are_resolved_as_in_the_pod() {
    let far = ("far.example.", "127.0.0.1");
    let (server, _nameservers) = start(&[Some(Manner::Good)], &[THING1, far]).await;
    let client = server.client().await;
    let (port, listener) = target().await;
    for host in [
        "thing1",
        "thing1.ns.svc.cluster.local",
        "THING1.ns.svc.cluster.local.",
        "far.example",
        "alias.example",
    ] {
        client.reach(host, &listener).await;
    }
    for host in ["thing2", "thing1.", "thing1.ns"] {
        assert_eq!(
            client.open(host, port).await.unwrap_err(),
            DialError::UnknownName,
            "{host}"
        );
    }
}

/// What stands in hosts (hostAliases) goes before what the nameservers say.
#[tokio::test]
async fn hosts_go_before_dns() {
    let (server, nameservers) = start(&[Some(Manner::Good)], &[THING1]).await;
    std::fs::write(&server.files.hosts, "127.0.0.7 thing1\n").unwrap();
    let client = server.client().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.7:0").await.unwrap();
    client.reach("thing1", &listener).await;
    assert_eq!(nameservers[0].times_asked(), 0);
}

#[tokio::test]
async fn a_failing_nameserver_is_not_an_unknown_name() {
    let (server, _nameservers) = start(&[Some(Manner::Failing)], &[]).await;
    let refused = server.client().await.open("thing1", 80).await;
    assert_eq!(refused.unwrap_err(), DialError::Nameserver);
}
