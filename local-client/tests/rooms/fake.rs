//! A pod that is made up: a zone, targets that greet or fail, and facts.

use async_trait::async_trait;
use bytes::Bytes;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use local_client::pod::{Datagrams, DnsError, Inbox, Incoming, ListenError, Pod, Target};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;
use tunnel::credit::TOTAL;
use tunnel::dial::DialError;
use tunnel::facts::{Blob, Facts, Variable};
use tunnel::stream::{Stream, memory};

pub const RESOLV_CONF: &str = "search ns.svc.cluster.local svc.cluster.local cluster.local\nnameserver 198.18.0.10\noptions ndots:5\n";

/// How long the fake nameserver's answers hold, in seconds.
pub const TTL: u32 = 300;

#[derive(Default)]
pub struct Fake {
    zone: Mutex<HashMap<Name, Vec<RData>>>,
    failures: Mutex<HashMap<Target, DialError>>,
    environment: Mutex<Vec<Variable>>,
    link_down: Mutex<bool>,
    /// Lets the queries for names that start with "slow" pass.
    pub release: Notify,
    /// Told of each query for such a name.
    pub held: Notify,
}

pub fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}

impl Fake {
    pub fn new() -> Arc<Fake> {
        Arc::default()
    }

    pub fn record(&self, owner: &str, data: RData) {
        let mut zone = self.zone.lock().unwrap();
        zone.entry(name(owner)).or_default().push(data);
    }

    pub fn address(&self, owner: &str, address: &str) {
        self.record(
            owner,
            match address.parse().unwrap() {
                IpAddr::V4(address) => RData::A(A(address)),
                IpAddr::V6(address) => RData::AAAA(AAAA(address)),
            },
        );
    }

    pub fn alias(&self, owner: &str, target: &str) {
        self.record(owner, RData::CNAME(CNAME(name(target))));
    }

    /// A Service as CoreDNS shows it: its address, and its ports in SRV records of the bare name.
    pub fn service(&self, owner: &str, address: &str, ports: &[u16]) {
        self.remove(owner);
        self.address(owner, address);
        for port in ports {
            self.record(owner, RData::SRV(SRV::new(0, 100, *port, name(owner))));
        }
    }

    pub fn remove(&self, owner: &str) {
        self.zone.lock().unwrap().remove(&name(owner));
    }

    /// Connections to `host` fail.
    pub fn fail(&self, host: &str, port: u16, error: DialError) {
        let target = Target {
            host: host.into(),
            port,
        };
        self.failures.lock().unwrap().insert(target, error);
    }

    pub fn variable(&self, key: &str, value: &str) {
        self.environment.lock().unwrap().push(Variable {
            key: Blob(key.into()),
            value: Blob(value.into()),
        });
    }

    pub fn set_link_down(&self, down: bool) {
        *self.link_down.lock().unwrap() = down;
    }

    /// What the nameserver answers to `query`.
    pub fn answer(&self, query: &[u8]) -> Bytes {
        let query = Message::from_vec(query).unwrap();
        let mut message = Message::response(query.metadata.id, query.metadata.op_code);
        message.metadata.authoritative = true;
        message.metadata.recursion_desired = query.metadata.recursion_desired;
        let question = query.queries.into_iter().next().unwrap();
        message.add_query(question.clone());
        let zone = self.zone.lock().unwrap();
        let mut owner = question.name.clone();
        loop {
            let Some(records) = zone.get(&owner) else {
                message.metadata.response_code = ResponseCode::NXDomain;
                break;
            };
            let mut alias = None;
            for data in records {
                if let RData::CNAME(target) = data {
                    alias = Some(target.0.clone());
                } else if data.record_type() != question.query_type {
                    continue;
                }
                message.add_answer(Record::from_rdata(owner.clone(), TTL, data.clone()));
                if let RData::SRV(srv) = data {
                    for hint in zone.get(&srv.target).into_iter().flatten() {
                        if matches!(hint.record_type(), RecordType::A | RecordType::AAAA) {
                            let hint = Record::from_rdata(srv.target.clone(), TTL, hint.clone());
                            message.add_additional(hint);
                        }
                    }
                }
            }
            match alias {
                Some(target) => owner = target,
                None => break,
            }
        }
        message.to_vec().unwrap().into()
    }
}

#[async_trait]
impl Pod for Fake {
    /// Greets with the target's name, then echoes.
    async fn open(&self, target: &Target) -> Result<Stream, DialError> {
        if let Some(error) = self.failures.lock().unwrap().get(target) {
            return Err(*error);
        }
        let (near, mut far) = memory::pair();
        let greeting = Bytes::from(format!("{target}\n"));
        tokio::spawn(async move {
            far.writer.write(greeting).await?;
            while let Some(bytes) = far.reader.read().await? {
                far.writer.write(bytes).await?;
            }
            far.writer.finish().await
        });
        Ok(near)
    }

    async fn dns(&self, query: Bytes) -> Result<Bytes, DnsError> {
        if *self.link_down.lock().unwrap() {
            return Err(DnsError::LinkDown);
        }
        let slow = Message::from_vec(&query)
            .unwrap()
            .queries
            .first()
            .is_some_and(|question| {
                question
                    .name
                    .iter()
                    .next()
                    .is_some_and(|label| label.starts_with(b"slow"))
            });
        if slow {
            self.held.notify_one();
            self.release.notified().await;
        }
        Ok(self.answer(&query))
    }

    async fn listen(&self, _: u16) -> Result<Incoming, ListenError> {
        unreachable!("no room under test listens by itself")
    }

    /// All peers echo.
    fn udp(&self, inbox: Arc<dyn Inbox>) -> Box<dyn Datagrams> {
        struct Echo(Arc<dyn Inbox>);
        impl Datagrams for Echo {
            fn send(&self, to: SocketAddr, payload: &[u8]) {
                self.0.datagram(to, payload);
            }
        }
        Box::new(Echo(inbox))
    }

    async fn listen_udp(
        &self,
        _: u16,
        _: Arc<dyn Inbox>,
    ) -> Result<Box<dyn Datagrams>, ListenError> {
        unreachable!("no room under test listens by itself")
    }

    fn facts(&self) -> Arc<Facts> {
        Arc::new(Facts {
            version: "fake".into(),
            hostname: "pod-1".into(),
            budget: TOTAL,
            environment: self.environment.lock().unwrap().clone(),
            resolv_conf: Blob(RESOLV_CONF.into()),
            hosts: Blob(vec![]),
        })
    }
}
