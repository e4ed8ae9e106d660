//! Loopback mode: names are looked up by real queries, and their addresses connected to.

use crate::fake::{Fake, name};
use crate::network::{Network, Port, greeting, query};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{HTTPS, SVCB, TXT};
use hickory_proto::rr::{RData, RecordType};
use std::collections::HashSet;
use std::io::ErrorKind;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tunnel::dial::DialError;

const THING1: &str = "thing1.ns.svc.cluster.local";
const THING2: &str = "thing2.ns.svc.cluster.local";

/// O1: a Service is reached by its name and hard-coded port, whatever the case of its letters.
#[tokio::test]
async fn a_service_is_reached_by_its_name() {
    let (pod, port) = (Fake::new(), Port::free());
    pod.service(THING1, "198.18.0.1", &[port.number]);
    let network = Network::loopback(&pod, &[], &[]).await;

    let asked = "Thing1.NS.svc.cluster.local";
    let answer = network.ask(asked, RecordType::A).await;
    let record = answer.answers.first().unwrap();
    assert!(record.name.eq_case(&name(asked)), "{record}");
    assert_eq!(record.ttl, 30);
    assert!(answer.metadata.authoritative, "the header is the pod's");
    assert!(network.address(asked).await.is_loopback());
    let expected = format!("{THING1}.:{}", port.number);
    assert_eq!(network.greeting(asked, port.number).await, expected);
}

/// O3, D7: two hosts on one port, even with one address in the cluster, have addresses of their own.
#[tokio::test]
async fn two_hosts_on_one_port_are_told_apart() {
    let (pod, port) = (Fake::new(), Port::free());
    let cloud = "db.cloud.example.com";
    let proxied = format!("{cloud}:{}", port.number);
    for owner in [THING1, THING2] {
        pod.service(owner, "198.18.0.1", &[port.number]);
    }
    pod.address(cloud, "198.18.0.1");
    let network = Network::loopback(&pod, &[&proxied], &[]).await;
    for owner in [THING1, cloud, THING2] {
        let expected = format!("{owner}.:{}", port.number);
        assert_eq!(network.greeting(owner, port.number).await, expected);
    }
}

/// O3: thirty Services with several ports each.
#[tokio::test]
async fn thirty_services_with_several_ports() {
    let pod = Fake::new();
    let ports = [Port::free(), Port::free(), Port::free()];
    let numbers = ports.each_ref().map(|port| port.number);
    let names: Vec<_> = (0..30)
        .map(|n| format!("s{n}.ns.svc.cluster.local"))
        .collect();
    for owner in &names {
        pod.service(owner, "198.18.0.1", &numbers);
    }
    let network = Network::loopback(&pod, &[], &[]).await;
    let mut addresses = HashSet::new();
    for owner in &names {
        addresses.insert(network.address(owner).await);
        for port in numbers {
            assert_eq!(
                network.greeting(owner, port).await,
                format!("{owner}.:{port}")
            );
        }
    }
    assert_eq!(addresses.len(), names.len());
}

/// O4: a Service that comes after the start, changes its ports, and goes.
#[tokio::test]
async fn a_service_comes_changes_and_goes() {
    let (pod, old, new) = (Fake::new(), Port::free(), Port::free());
    let network = Network::loopback(&pod, &[], &[]).await;
    let answer = network.ask(THING1, RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);

    pod.service(THING1, "198.18.0.1", &[old.number]);
    let address = network.address(THING1).await;
    network.greeting(THING1, old.number).await;
    let refused = TcpStream::connect((address, new.number)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    pod.service(THING1, "198.18.0.2", &[new.number]);
    assert_eq!(network.address(THING1).await, address, "stable for the run");
    greeting((address, new.number).into()).await;
    let refused = TcpStream::connect((address, old.number)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    pod.service(THING1, "198.18.0.2", &[old.number, new.number]);
    network.greeting(THING1, old.number).await;
    network.greeting(THING1, new.number).await;

    pod.remove(THING1);
    let answer = network.ask(THING1, RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
}

/// A port that vanished does not end the connections that are open on it.
#[tokio::test]
async fn open_connections_survive_a_change_of_ports() {
    let (pod, old, new) = (Fake::new(), Port::free(), Port::free());
    pod.service(THING1, "198.18.0.1", &[old.number]);
    let network = Network::loopback(&pod, &[], &[]).await;
    let address = network.address(THING1).await;
    let mut open = TcpStream::connect((address, old.number)).await.unwrap();
    open.read_u8().await.unwrap();
    pod.service(THING1, "198.18.0.1", &[new.number]);
    network.address(THING1).await;
    open.read_u8().await.unwrap();
}

/// O5: the pods of a headless Service, which are names of their own with the Service's ports.
#[tokio::test]
async fn a_pod_of_a_headless_service_has_the_services_ports() {
    let (pod, port) = (Fake::new(), Port::free());
    pod.service("db.ns.svc.cluster.local", "198.18.0.1", &[port.number]);
    pod.address("pod-0.db.ns.svc.cluster.local", "198.18.0.1");
    let network = Network::loopback(&pod, &[], &[]).await;
    assert_eq!(
        network
            .greeting("pod-0.db.ns.svc.cluster.local", port.number)
            .await,
        format!("pod-0.db.ns.svc.cluster.local.:{}", port.number)
    );
}

/// O5: an ExternalName Service has the ports that --proxy gives its target.
#[tokio::test]
async fn an_alias_of_a_proxied_host_has_its_ports() {
    let (pod, port) = (Fake::new(), Port::free());
    let proxied = format!("db.cloud.example.com:{}", port.number);
    pod.alias("ext.ns.svc.cluster.local", "db.cloud.example.com");
    pod.address("db.cloud.example.com", "192.0.2.1");
    let network = Network::loopback(&pod, &[&proxied], &[]).await;
    assert_eq!(
        network
            .greeting("ext.ns.svc.cluster.local", port.number)
            .await,
        format!("ext.ns.svc.cluster.local.:{}", port.number)
    );
}

/// Where the nameserver lists no ports, the pod's environment does.
#[tokio::test]
async fn ports_are_taken_from_the_environment_where_there_is_no_srv() {
    let (pod, port) = (Fake::new(), Port::free());
    pod.address(THING1, "198.18.0.1");
    pod.variable("THING1_SERVICE_PORT", &port.number.to_string());
    let network = Network::loopback(&pod, &[], &[]).await;
    network.greeting(THING1, port.number).await;
}

/// A name that has IPv6 addresses alone is reached as well: its A query is the one that is answered.
#[tokio::test]
async fn a_name_with_ipv6_alone_gets_an_address() {
    let (pod, port) = (Fake::new(), Port::free());
    pod.service(THING1, "fd00::1", &[port.number]);
    let network = Network::loopback(&pod, &[], &[]).await;
    network.greeting(THING1, port.number).await;
    let answer = network.ask(THING1, RecordType::AAAA).await;
    assert!(answer.answers.is_empty());
}

/// What would lead past the listeners is not there, and that is no error.
#[tokio::test]
async fn other_ways_to_a_claimed_name_are_closed() {
    let (pod, port) = (Fake::new(), Port::free());
    pod.service(THING1, "fd00::1", &[port.number]);
    let hint = || SVCB::new(1, name("."), vec![]);
    pod.record(THING1, RData::HTTPS(HTTPS(hint())));
    pod.record(THING1, RData::SVCB(hint()));
    let network = Network::loopback(&pod, &[], &[]).await;
    for record_type in [RecordType::AAAA, RecordType::HTTPS, RecordType::SVCB] {
        let answer = network.ask(THING1, record_type).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert!(answer.answers.is_empty(), "{answer}");
    }
    let direct = pod.answer(&query(THING1, RecordType::SRV));
    let direct = Message::from_vec(&direct).unwrap();
    assert!(
        !direct.additionals.is_empty(),
        "the nameserver hints at addresses"
    );
    let answer = network.ask(THING1, RecordType::SRV).await;
    assert_eq!(answer.answers, direct.answers);
    assert!(answer.additionals.is_empty(), "{answer}");
}

/// D1: everything else is the nameserver's own answer, byte for byte.
#[tokio::test]
async fn all_other_answers_pass_byte_for_byte() {
    let pod = Fake::new();
    pod.record(THING1, RData::TXT(TXT::new(vec!["text".into()])));
    pod.address("example.com", "192.0.2.1");
    pod.address("example.com", "2001:db8::1");
    pod.alias("dangling.example.com", "gone.example.com");
    let ptr = "1.0.18.198.in-addr.arpa";
    pod.record(ptr, RData::PTR(hickory_proto::rr::rdata::PTR(name(THING1))));
    let network = Network::loopback(&pod, &["dangling.example.com:80"], &[]).await;
    for (owner, record_type) in [
        (THING1, RecordType::A),
        (THING1, RecordType::AAAA),
        (THING1, RecordType::TXT),
        (THING1, RecordType::SRV),
        (THING2, RecordType::A),
        (THING2, RecordType::AAAA),
        (THING2, RecordType::SRV),
        ("dangling.example.com", RecordType::A),
        ("dangling.example.com", RecordType::AAAA),
        ("example.com", RecordType::A),
        ("example.com", RecordType::AAAA),
        (ptr, RecordType::PTR),
    ] {
        let query = query(owner, record_type);
        let answer = network.exchange(&query).await;
        assert_eq!(answer, pod.answer(&query), "{owner} {record_type}");
    }
}

/// The app's own port is never taken: a Service that has it cannot be had.
#[tokio::test]
async fn a_local_port_of_expose_makes_the_name_fail() {
    let (pod, own, other) = (Fake::new(), Port::free(), Port::free());
    pod.service(THING1, "198.18.0.1", &[own.number, other.number]);
    pod.service(THING2, "198.18.0.1", &[other.number]);
    let network = Network::loopback(&pod, &[], &[own.number]).await;
    let answer = network.ask(THING1, RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(answer.answers.is_empty());
    network.greeting(THING2, other.number).await;
    let app = ("0.0.0.0", own.release());
    TcpListener::bind(app).await.expect("nobody listens there");
}

/// An app that listens on all addresses would get the connection itself: the name fails for as long as it does.
#[tokio::test]
async fn a_port_the_app_has_taken_makes_the_name_fail() {
    let pod = Fake::new();
    let app = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = app.local_addr().unwrap().port();
    pod.service(THING1, "198.18.0.1", &[port]);
    let network = Network::loopback(&pod, &[], &[]).await;
    let answer = network.ask(THING1, RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    drop(app);
    network.greeting(THING1, port).await;
}

/// Never an empty answer.
#[tokio::test]
async fn o9_an_unreachable_target_is_a_reset() {
    let (pod, port) = (Fake::new(), Port::free());
    pod.service(THING1, "198.18.0.1", &[port.number]);
    pod.fail(&format!("{THING1}."), port.number, DialError::Refused);
    let network = Network::loopback(&pod, &[], &[]).await;
    let address = network.address(THING1).await;
    for _ in 0..3 {
        // The reset may even be there before connect returns.
        let outcome = match TcpStream::connect((address, port.number)).await {
            Ok(mut tcp) => tcp.read_u8().await,
            Err(error) => Err(error),
        };
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

/// While the link is down names fail, and the listeners stay.
#[tokio::test]
async fn a_lost_link_fails_names_and_keeps_listeners() {
    let (pod, port) = (Fake::new(), Port::free());
    pod.service(THING1, "198.18.0.1", &[port.number]);
    let network = Network::loopback(&pod, &[], &[]).await;
    let address = network.address(THING1).await;
    pod.set_link_down(true);
    let answer = network.ask(THING1, RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    pod.set_link_down(false);
    greeting((address, port.number).into()).await;
}

/// Nothing is left listening after the end.
#[tokio::test]
async fn the_end_frees_every_port() {
    let (pod, port) = (Fake::new(), Port::free());
    pod.service(THING1, "198.18.0.1", &[port.number]);
    let network = Network::loopback(&pod, &[], &[]).await;
    let address = network.address(THING1).await;
    network.shutdown.cancel();
    network.tracker.close();
    network.tracker.wait().await;
    let error = TcpStream::connect((address, port.number))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}
