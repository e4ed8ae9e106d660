//! UDP in transparent mode: what is sent and received here is what the pod would.

use anyhow::ensure;
use std::process::Command;
use tests::app::{self, App};
use tests::caller::Caller;
use tests::client::{ADMIN, Client};
use tests::command::{Background, eventually, run};
use tests::docker::Network;
use tests::manifests;
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::programs::{self, DATAGRAMS, python};
use tests::shell::{Shell, assert_reset};

const PORT: &str = "9000";

/// The peer, a pod, and its Service of the same ports.
fn peer() -> String {
    let command = python(DATAGRAMS, &["serve", PORT]);
    manifests::pod("peer", app::IMAGE, &command, 9000, "")
        + "
apiVersion: v1
kind: Service
metadata: {name: peer}
spec:
  selector: {name: peer}
  ports:
  - {name: one, protocol: UDP, port: 9000}
  - {name: other, protocol: UDP, port: 9001}
"
}

/// A namespace with the peer, and a client with NET_ADMIN.
fn connected() -> Outcome<(Namespace, Client)> {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    namespace.apply(&peer())?;
    namespace.ready("pod/peer")?;
    let client = Client::transparent(&namespace, &[])?;
    Ok((namespace, client))
}

/// The same program in a pod and in a joined container, and what it says is the same.
#[test]
fn o14_datagrams_as_in_the_pod() -> Outcome {
    let (namespace, client) = connected()?;
    let app = App::idle(&client)?;
    let address = namespace.kubectl("get pod peer -o jsonpath={.status.podIP}")?;
    let probe = ["probe", &address, PORT];
    let there = programs::run(&Caller::new(&namespace), DATAGRAMS, &probe)?;
    for line in [
        "sizes: 65507 bytes: True",
        "several_peers: ports: 1",
        "several_peers: from another port: True",
        "several_peers: to another port: True",
        "several_peers: from another port, to a connected one: nothing",
        "same_port: the peer's own port: True",
        "same_port: and then it is: None",
        "many_sockets: 200 of 200 sockets",
        "nobody: at a closed port: ECONNREFUSED",
        "nobody: and sending: ECONNREFUSED",
        "nobody: without being connected: nothing",
        "nobody: with the queue of errors: ECONNREFUSED",
        "nobody: no answer: nothing",
        "mapped: by a mapped address: True",
        "mapped: and for a connection: True, b''",
    ] {
        ensure_line(&there, line)?;
    }
    assert_eq!(programs::run(&app, DATAGRAMS, &probe)?, there);
    Ok(())
}

fn ensure_line(text: &str, line: &str) -> anyhow::Result<()> {
    ensure!(text.lines().any(|said| said == line), "{line}?\n{text}");
    Ok(())
}

/// An address of IPv6 that is the pod's alone, with a server at it: the cluster does not know of it.
const ADDRESS: &str = "fd00:77::1";

/// TCP and UDP to an address of IPv6: as for what is beside the client in its pod. From a network of Docker's that has IPv6, and from one that has
/// none.
#[test]
fn o15_ipv6_as_in_the_pod() -> Outcome {
    let namespace = Namespace::new()?;
    let command = serde_json::json!(python(DATAGRAMS, &["serve", PORT]));
    let address = manifests::own_address(&format!("{ADDRESS}/64"));
    let sidecar = format!(
        "{{name: sidecar, image: '{}', command: {command}}}",
        app::IMAGE
    );
    namespace.apply(&manifests::target_with(&[&address], &[&sidecar])?)?;
    namespace.rolled_out()?;
    let sidecar = Caller::of(&namespace, "deploy/yourcode-deployment", "sidecar");
    let probe = ["probe", ADDRESS, PORT];
    // The server's port is taken where it runs.
    let parts = [
        &probe[..],
        &["sizes", "several_peers", "many_sockets", "nobody"],
    ]
    .concat();
    let there = eventually("the server", || {
        let said = programs::run(&sidecar, DATAGRAMS, &parts)?;
        ensure_line(&said, "sizes: 65488 bytes: True").map(|()| said)
    })?;
    for line in [
        "several_peers: to another port: True",
        "nobody: at a closed port: ECONNREFUSED",
        "nobody: in which is: ECONNREFUSED, 3, 1, True",
    ] {
        ensure_line(&there, line)?;
    }
    let same_port = [&probe[..], &["same_port"]].concat();
    let without = Client::transparent(&namespace, &[])?;
    without.logged(1, &["--sysctl net.ipv6.conf.all.disable_ipv6=0"])?;
    let on = ["--sysctl", "net.ipv6.conf.all.disable_ipv6=0"];
    for network in [&["--network", "kind"][..], &on] {
        let on_network = [&ADMIN[..], network].concat();
        let client = Client::of(&namespace).docker(&on_network).start(&[])?;
        let app = App::idle(&client)?;
        assert_eq!(programs::run(&app, DATAGRAMS, &parts)?, there);
        let said = programs::run(&app, DATAGRAMS, &same_port)?;
        ensure_line(&said, "same_port: the peer's own port: True")?;
        assert_eq!(app.connection(ADDRESS, 9000)?, "connected an orderly end");
        // That one is nobody's.
        assert_reset(&app.connection("2001:2:0:ff::1", 9000)?);
        client.logged(1, &["[2001:2:0:ff::1]:9000", "unreachable"])?;
    }
    Ok(())
}

/// O14 to the cluster's nameserver, which a program may ask by its address: for any user, without privileges, and from a program that is
/// linked statically.
#[test]
fn o14_from_any_program_to_a_service() -> Outcome {
    let (namespace, client) = connected()?;
    let address = |service: &str| {
        let line = format!("get service {service} -o jsonpath={{.spec.clusterIP}}");
        namespace.kubectl(&line)
    };
    let nameserver = address("-n kube-system kube-dns")?;
    let thing1 = address("thing1")?;
    let name = format!("thing1.{}.svc.cluster.local", namespace.name);
    let query = format!("dig +short +notcp @{nameserver} {name}");
    let small_query = format!("nslookup -type=a {name} {nameserver} | tail -n 2");
    for options in app::USERS {
        for (image, query) in [(app::IMAGE, &query), (manifests::BUSYBOX, &small_query)] {
            let mut docker = app::joined(&client);
            docker.args(options).args([image, "sh", "-c", query]);
            let answer = run(&mut docker)?;
            assert!(answer.contains(&thing1), "{options:?} {query}: {answer}");
        }
    }
    Ok(())
}

/// A Service of UDP that leads to the target.
const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: datagrams}
spec:
  selector: {name: yourcode}
  ports: [{protocol: UDP, port: 9000}]
";

/// Pods reach the code's port by the Service and by the pod's address, as they reach a server in the cluster; with and without privileges.
#[test]
fn i1_i2_datagrams_from_the_cluster() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    namespace.apply(&(peer() + "---" + SERVICE))?;
    namespace.ready("pod/peer")?;
    let caller = Caller::new(&namespace);
    let probe = |address: &str| {
        let words = ["probe", address, PORT, "sizes", "many_sockets"];
        programs::run(&caller, DATAGRAMS, &words)
    };
    let peer = namespace.kubectl("get pod peer -o jsonpath={.status.podIP}")?;
    let expected = probe(&peer)?;
    ensure_line(&expected, "many_sockets: 200 of 200 sockets")?;
    let service = namespace.kubectl("get service datagrams -o jsonpath={.spec.clusterIP}")?;
    for docker in [&[][..], &ADMIN] {
        let client = Client::of(&namespace)
            .docker(docker)
            .start(&["--expose", "9005:9000/udp"])?;
        let _app = programs::start(&client, DATAGRAMS, &["serve", "9005"])?;
        for address in [&service, &namespace.target_address()?] {
            eventually("the code", || {
                let said = probe(address)?;
                ensure!(said == expected, "{said}");
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// A network of the range that is set aside for tests, which neither the cluster nor its cloud has, and an address there.
const SUBNET: &str = "198.18.192.0/24";
const AT: &str = "198.18.192.10";

/// Datagrams go on after the link was lost, from the same port of the pod.
#[test]
fn o14_datagrams_after_a_lost_link() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    namespace.apply(&peer())?;
    namespace.ready("pod/peer")?;
    // Where it has the same address when it comes back: the code's socket has it as its own.
    let network = Network::with(&namespace.cluster, &["--subnet", SUBNET])?;
    let at = ["--network", &network.0, "--ip", AT];
    let client = Client::of(&namespace)
        .docker(&[&ADMIN[..], &at].concat())
        .start(&[])?;
    let app = App::idle(&client)?;
    let address = namespace.kubectl("get pod peer -o jsonpath={.status.podIP}")?;
    let script = format!(
        "import pathlib, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(('{address}', {PORT}))
s.settimeout(0.2)
def port():
    while True:
        s.send(b'p')
        try:
            return s.recv(100)
        except OSError:
            pass
def drain():
    s.settimeout(0)
    try:
        while True:
            s.recv(100)
    except OSError:
        s.settimeout(0.2)
before = port()
print('begun', flush=True)
while not pathlib.Path('/tmp/lost').exists():
    pass
# An answer of before would be none of after.
drain()
print(port() == before)"
    );
    let waiting = [&["timeout", "60"], &python(&script, &[])[..]].concat();
    let mut waiting = Background::start(app.exec().args(waiting))?;
    waiting.wait_for("the first answer", |line| (line == "begun").then_some(()))?;
    client.docker(&["network", "disconnect", &network.0])?;
    client.logged(1, &["the link was lost"])?;
    client.docker(&["network", "connect", "--ip", AT, &network.0])?;
    client.logged(1, &["connected again"])?;
    app.sh("touch /tmp/lost")?;
    let same = waiting.wait_for("the next answer", |line| {
        ["True", "False"].contains(&line).then(|| line.to_owned())
    })?;
    assert_eq!(same, "True");
    // First those that are on the network.
    drop((waiting, app, client));
    drop(network);
    Ok(())
}

/// What is local stays so: a server here answers whoever reached it, and a neighbour is reached.
#[test]
fn d6_datagrams_of_the_surroundings_stay_local() -> Outcome {
    let (namespace, client) = connected()?;
    let app = programs::start(&client, DATAGRAMS, &["serve", PORT])?;
    let address = client.address()?;
    let ask = |address: &str| {
        format!(
            "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(2)
s.connect(('{address}', {PORT}))
s.send(b'echo')
print(s.recv(100))"
        )
    };
    let from_here = |address: &str| {
        eventually("the local server", || {
            programs::run(&app, &ask(address), &[])
        })
    };
    assert_eq!(from_here("127.0.0.1")?, "b'echo'");
    assert_eq!(from_here(address.trim())?, "b'echo'");
    let cluster = &namespace.cluster;
    let from = |network: &str, address: &str| {
        let asked = ask(address);
        run(&mut app::elsewhere(cluster, network, &python(&asked, &[])))
    };
    assert_eq!(from("bridge", address.trim())?, "b'echo'\n");

    // One that the client was not connected to at the start is none of its surroundings, but whoever comes from there has an answer.
    let network = Network::new(cluster)?;
    run(Command::new("docker").args(["network", "connect", &network.0, &client.name]))?;
    let of_network = format!(
        "{{{{(index .NetworkSettings.Networks \"{}\").IPAddress}}}}",
        network.0
    );
    let address = client.docker(&["inspect", "-f", &of_network])?;
    assert_eq!(from(&network.0, address.trim())?, "b'echo'\n");
    drop((app, client));
    drop(network);
    Ok(())
}

/// By name and by address, with the client's SOCKS5 proxy in between, whatever the mode (RFC 1928 7).
#[test]
fn o17_datagrams_by_socks() -> Outcome {
    const ASK: &str = "import ipaddress, socket, struct, sys
control = socket.create_connection(('127.0.0.1', 1080))
control.sendall(bytes([5, 1, 0]))
assert control.recv(2) == bytes([5, 0])
control.sendall(bytes([5, 3, 0, 1]) + bytes(6))
reply = control.recv(10)
assert reply[1] == 0, reply
relay = socket.inet_ntoa(reply[4:8]), struct.unpack('!H', reply[8:])[0]
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.settimeout(10)
for host in sys.argv[1:]:
    try:
        to = bytes([1]) + ipaddress.IPv4Address(host).packed
    except ValueError:
        to = bytes([3, len(host)]) + host.encode()
    asking.sendto(bytes(3) + to + struct.pack('!H', 9000) + b'echo', relay)
    answer = asking.recv(1000)
    print(answer[10:].decode(), struct.unpack('!H', answer[8:10])[0])";
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    namespace.apply(&peer())?;
    namespace.ready("pod/peer")?;
    let address = namespace.kubectl("get service peer -o jsonpath={.spec.clusterIP}")?;
    for docker in [&[][..], &ADMIN] {
        let client = Client::of(&namespace).docker(docker).start(&[])?;
        let app = App::idle(&client)?;
        let said = eventually("the Service", || {
            programs::run(&app, ASK, &["peer", &address])
        })?;
        assert_eq!(said, ["echo 9000"; 2].join("\n"), "{docker:?}");
    }
    Ok(())
}

/// The pod's port is open, whoever listens here.
#[test]
fn w1_a_peer_does_not_learn_that_nobody_listens() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let client = Client::start(&namespace, &["--expose", "9000/udp"])?;
    let address = namespace.target_address()?;
    let script = format!(
        "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
s.connect(('{address}', {PORT}))
for _ in range(4):
    s.send(b'echo')
    try:
        print(s.recv(100))
    except TimeoutError:
        print('nothing')"
    );
    let heard = programs::run(&Caller::new(&namespace), &script, &[])?;
    assert_eq!(heard, ["nothing"; 4].join("\n"));
    client
        .logged(1, &["your program does not listen on port 9000/udp"])
        .map_err(Into::into)
}
