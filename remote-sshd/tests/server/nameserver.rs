//! A nameserver for tests: UDP and TCP on one address, answering as the test says.

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{RData, Record, RecordType};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

/// How a nameserver behaves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Answers what it knows, NXDOMAIN otherwise.
    Good,
    /// Says over UDP that the answer is too long for it.
    Long,
    /// Sends answers to other questions, and with other ids, before the right one.
    Noisy,
    /// Fails.
    Failing,
    /// Says nothing.
    Silent,
}

/// A nameserver; it ends with the test.
pub struct Nameserver {
    pub asked: Arc<Mutex<Vec<Message>>>,
    _tasks: JoinSet<()>,
}

impl Nameserver {
    /// Listens on `address`. Knows the A records of `names`; every name below "txt." has a TXT record of its own text.
    pub async fn start(address: SocketAddr, manner: Manner, names: &[(&str, &str)]) -> Nameserver {
        let names: HashMap<String, Ipv4Addr> = names
            .iter()
            .map(|(name, address)| ((*name).to_owned(), address.parse().unwrap()))
            .collect();
        let asked = Arc::new(Mutex::new(vec![]));
        let udp = UdpSocket::bind(address).await.unwrap();
        let tcp = TcpListener::bind(address).await.unwrap();
        let mut tasks = JoinSet::new();
        let (known, log) = (names.clone(), asked.clone());
        tasks.spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (n, from) = udp.recv_from(&mut buffer).await.unwrap();
                let query = Message::from_vec(&buffer[..n]).unwrap();
                log.lock().unwrap().push(query.clone());
                for answer in answers(&query, manner, &known) {
                    udp.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
                }
            }
        });
        tasks.spawn(async move {
            loop {
                let (mut tcp, _) = tcp.accept().await.unwrap();
                let length = tcp.read_u16().await.unwrap();
                let mut query = vec![0; length.into()];
                tcp.read_exact(&mut query).await.unwrap();
                let query = Message::from_vec(&query).unwrap();
                let mut answer = answers(&query, Manner::Good, &names).remove(0);
                if manner == Manner::Long {
                    // Longer than any datagram.
                    let name = query.queries[0].name().clone();
                    let text = RData::TXT(TXT::new(vec!["x".repeat(250)]));
                    for _ in 0..200 {
                        answer.add_answer(Record::from_rdata(name.clone(), 1, text.clone()));
                    }
                }
                let bytes = answer.to_vec().unwrap();
                tcp.write_u16(bytes.len().try_into().unwrap())
                    .await
                    .unwrap();
                tcp.write_all(&bytes).await.unwrap();
            }
        });
        Nameserver {
            asked,
            _tasks: tasks,
        }
    }

    pub fn times_asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn answers(query: &Message, manner: Manner, names: &HashMap<String, Ipv4Addr>) -> Vec<Message> {
    let mut answer = query.clone().into_response();
    answer.additionals.clear();
    let question = query.queries[0].clone();
    let name = question.name().to_string().to_ascii_lowercase();
    match manner {
        Manner::Silent => return vec![],
        Manner::Failing => {
            answer.metadata.response_code = ResponseCode::ServFail;
            return vec![answer];
        }
        Manner::Long => {
            answer.metadata.truncation = true;
            return vec![answer];
        }
        Manner::Good | Manner::Noisy => {}
    }
    let record = |data| Record::from_rdata(question.name().clone(), 5, data);
    match (names.get(&name), question.query_type()) {
        (Some(address), RecordType::A) => {
            answer.add_answer(record(RData::A(A(*address))));
        }
        (None, RecordType::TXT) if name.ends_with("txt.") => {
            answer.add_answer(record(RData::TXT(TXT::new(vec![name]))));
        }
        (Some(_), _) => {}
        (None, _) => answer.metadata.response_code = ResponseCode::NXDomain,
    }
    if manner == Manner::Good {
        return vec![answer];
    }
    let mut forged = answer.clone();
    forged.answers.clear();
    forged.metadata.id = answer.metadata.id.wrapping_add(1);
    let mut other = answer.clone();
    other.queries[0].set_name("other.".parse().unwrap());
    vec![forged, other, answer]
}

/// An address of the loopback and a port that are free for UDP and TCP on it and the next few addresses: nameservers of one
/// resolver share the port.
pub async fn free_port_for(addresses: &[IpAddr]) -> u16 {
    for _ in 0..100 {
        let port = crate::harness::free_port().await;
        let mut all = vec![];
        for address in addresses {
            all.push(UdpSocket::bind((*address, port)).await.is_ok());
            all.push(TcpListener::bind((*address, port)).await.is_ok());
        }
        if all.iter().all(|free| *free) {
            return port;
        }
    }
    panic!("no port is free");
}
