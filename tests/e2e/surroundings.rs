//! Transparent mode: what stays on this side, and what does not.

use anyhow::{Context, Result, ensure};
use std::net::Ipv4Addr;
use tests::app::{self, App};
use tests::caller::Caller;
use tests::client::{ADMIN, Client};
use tests::command::{eventually, run};
use tests::docker::Network;
use tests::manifests::service_for;
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::programs::python;
use tests::shell::Shell;

/// A container on a network of Docker's, with a web server at port 7001.
fn neighbour(namespace: &Namespace, network: &str) -> Result<App> {
    let server = "mkdir /www && echo neighbour >/www/index.html && exec python3 -m http.server --directory /www 7001";
    App::neighbour(&namespace.cluster, network, &["sh", "-c", server])
}

/// Other containers, the host, and this one itself are reached as before, and by them this one.
#[test]
fn d6_the_surroundings_stay_local() -> Outcome {
    let namespace = Namespace::new()?.with_target()?;
    let client = Client::transparent(&namespace, &[])?;
    let app = App::httpd(&client, "8000", "local code")?;
    eventually("the code", || app.get("http://127.0.0.1:8000"))?;
    let address = client.address()?;
    let url = format!("http://{}:8000", address.trim());
    assert_eq!(app.get(&url)?, "local code");
    let cluster = &namespace.cluster;
    let fetched = run(&mut app::elsewhere(
        cluster,
        "bridge",
        &["curl", "-sS", "--max-time", "10", &url],
    ))?;
    assert_eq!(fetched.trim(), "local code", "a neighbour reaches it");
    Ok(())
}

/// Waits until `place` gets `page` from `url`.
fn shows(place: &App, url: &str, page: &str) -> Result<()> {
    eventually(page, || {
        let got = place.get(url)?;
        ensure!(got == page, "{got}");
        Ok(())
    })
}

/// The laptop reaches the code by a port that Docker publishes, and the code the laptop by the name that Docker has for it.
#[test]
fn d6_the_laptop() -> Outcome {
    let namespace = Namespace::new()?.with_target()?;
    let cluster = &namespace.cluster;
    let serve = "mkdir /www && echo laptop >/www/index.html && exec python3 -u -m http.server --directory /www 0";
    let laptop = App::run(
        cluster,
        &["--network", "host"],
        app::IMAGE,
        &["sh", "-c", serve],
    )?;
    let port = eventually("its port", || {
        let log = laptop.log()?;
        let (_, port) = log.split_once(" port ").context("no port yet")?;
        let port = port.split(' ').next().context("a number")?;
        anyhow::Ok(port.to_owned())
    })?;
    let docker = [
        "--add-host",
        "host.docker.internal:host-gateway",
        "-p",
        "127.0.0.1::8000",
    ];
    let client = Client::of(&namespace)
        .docker(&[&ADMIN[..], &docker].concat())
        .start(&[])?;
    let app = App::httpd(&client, "8000", "local code")?;
    let published = client.docker(&["port"])?;
    let (_, published) = published.split_once("-> ").context("a published port")?;
    let url = format!("http://{}", published.trim());
    shows(&laptop, &url, "local code")?;
    assert_eq!(
        app.get(&format!("http://host.docker.internal:{port}"))?,
        "laptop"
    );
    Ok(())
}

/// Docker's resolver asks its own nameservers from within the client's network: for the client, they are this side's. The nameserver tells everybody their own
/// address.
#[test]
fn d6_the_nameservers_of_dockers_resolver() -> Outcome {
    const NAMESERVER: &str = "import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 53))
print('ready')
while True:
    query, asker = server.recvfrom(4096)
    question = query[12 : query.index(b'\\0', 12) + 5]
    records = [b'\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\5\\0\\4' + socket.inet_aton(asker[0])]
    if question[-4:-2] != b'\\0\\1':
        records = []
    header = query[:2] + b'\\x81\\x80\\0\\1\\0' + bytes([len(records)]) + bytes(4)
    server.sendto(header + question + b''.join(records), asker)";
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let bridge = namespace.cluster.bridge()?;
    let nameserver = App::run(
        &namespace.cluster,
        &["--network", "host"],
        app::IMAGE,
        &python(NAMESERVER, &[&bridge]),
    )?;
    eventually("the nameserver", || {
        ensure!(nameserver.log()?.contains("ready"));
        Ok(())
    })?;
    let network = Network::new(&namespace.cluster)?;
    let docker = ["--network", &network.0, "--dns", &bridge];
    let client = Client::of(&namespace)
        .docker(&[&ADMIN[..], &docker].concat())
        .start(&["--local", "whoami.example.com"])?;
    let app = App::idle(&client)?;
    let own = app.sh("hostname -i")?;
    assert_eq!(app.sh("dig +short whoami.example.com")?, own);
    // What the code asks it is asked from the pod, which has another address, if it is answered at all.
    let asked = app.try_sh(&format!(
        "dig +short +tries=1 +time=2 @{bridge} other.example.com"
    ))?;
    let answer = String::from_utf8_lossy(&asked.stdout);
    assert!(!answer.lines().any(|line| line == own), "{answer}");
    drop((app, client));
    Ok(())
}

/// A name that the cluster does not know is Docker's, and its address leads there.
#[test]
fn d6_a_neighbour_by_its_name() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let on_network = [&ADMIN[..], &["--network", "kind"]].concat();
    let neighbour = neighbour(&namespace, "kind")?;
    let url = format!("http://{}:7001", neighbour.name);
    let client = Client::of(&namespace).docker(&on_network).start(&[])?;
    let app = App::idle(&client)?;
    shows(&app, &url, "neighbour")?;
    assert_eq!(app.get("http://thing1:7001")?, "thing1");
    drop((app, client));

    let client = Client::of(&namespace)
        .docker(&on_network)
        .start(&["--no-local-names"])?;
    let app = App::idle(&client)?;
    let lookup = app.try_sh(&format!("getent hosts {}", neighbour.name))?;
    assert_eq!(lookup.status.code(), Some(2), "unknown: {lookup:?}");
    let address = neighbour.sh("hostname -i | tr ' ' '\\n' | grep -F .")?;
    assert_eq!(app.get(&format!("http://{address}:7001"))?, "neighbour");
    Ok(())
}

/// Of what the user keeps here and what not, the narrower counts.
#[test]
fn o5_what_the_user_chooses() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let address = |thing: &str| {
        namespace.kubectl(&format!(
            "get service {thing} -o jsonpath={{.spec.clusterIP}}"
        ))
    };
    let (one, other) = (address("thing1")?, address("thing2")?);
    let nameserver = address("-n kube-system kube-dns")?;
    let local = format!("TELEPRESENCE_LOCAL={one},{other}/31,{nameserver}:53");
    let remote = format!("TELEPRESENCE_REMOTE={one}:7001");
    let client = Client::of(&namespace)
        .docker(&[&ADMIN[..], &["-e", &local, "-e", &remote]].concat())
        .start(&[])?;
    let app = App::idle(&client)?;
    assert_eq!(app.get("http://thing1:7001")?, "thing1");
    assert_local(&app.connection(&other, 7002)?);
    let dig =
        format!("dig +notcp +tries=1 +time=2 @{nameserver} kubernetes.default.svc.cluster.local");
    let lookup = app.try_sh(&dig)?;
    assert_eq!(lookup.status.code(), Some(9), "no answer: {lookup:?}");
    Ok(())
}

/// Of an address of the cluster's: it did not lead there, where it would stand, or be reset.
fn assert_local(end: &str) {
    let leads_there = ["connected", "ConnectionResetError"];
    assert!(!leads_there.iter().any(|sign| end.contains(sign)), "{end}");
}

/// A name that the user keeps here is asked for here, also where the cluster has one like it; one that is the pod's is so at the port
/// that was named.
#[test]
fn d6_o5_names_that_the_user_chooses() -> Outcome {
    let namespace = Namespace::new()?.with_things()?;
    let network = Network::new(&namespace.cluster)?;
    let neighbour = neighbour(&namespace, &network.0)?;
    namespace.apply(&service_for(&neighbour.name, 7001, "thing1", 80))?;
    let namespace = namespace.with_target()?;
    namespace.rolled_out()?;
    // Later than the pod, which does not have it in its environment.
    namespace.apply(&service_for("listed", 7001, "thing1", 80))?;
    let address = namespace.kubectl("get service listed -o jsonpath={.spec.clusterIP}")?;
    let host = format!("listed.example:{address}");
    let docker = [&ADMIN[..], &["--network", &network.0, "--add-host", &host]].concat();
    let url = format!("http://{}:7001", neighbour.name);

    let client = Client::of(&namespace).docker(&docker).start(&[])?;
    let app = App::idle(&client)?;
    shows(&app, &url, "thing1")?;
    assert_local(&app.connection("listed.example", 7001)?);
    drop((app, client));

    let chosen = [
        "--local",
        &neighbour.name,
        "--remote",
        "listed.example:7001",
    ];
    let client = Client::of(&namespace).docker(&docker).start(&chosen)?;
    let app = App::idle(&client)?;
    shows(&app, &url, "neighbour")?;
    // A resolver asks for this one first, whichever of the two is meant.
    let whole = format!("{}.{}.svc.cluster.local", neighbour.name, namespace.name);
    let lookup = app.try_sh(&format!("getent hosts {whole}"))?;
    assert_eq!(lookup.status.code(), Some(2), "unknown: {lookup:?}");
    assert_eq!(app.get("http://listed.example:7001")?, "thing1");
    assert_local(&app.connection("listed.example", 7002)?);
    Ok(())
}

/// Where the client's own subnet is a part of the cluster's, what the cluster hands out leads there: by the environment, and by its DNS.
#[test]
fn d6_o5_a_network_with_the_clusters_addresses() -> Outcome {
    let namespace = Namespace::new()?.with_things()?;
    let [early, late] = free_addresses(&namespace)?;
    let service = |name: &str, address: Ipv4Addr| {
        let at = format!("spec:\n  clusterIP: {address}");
        service_for(name, 7001, "thing1", 80).replace("spec:", &at)
    };
    namespace.apply(&service("early", early))?;
    let namespace = namespace.with_target()?;
    let subnet = format!("{}/24", Ipv4Addr::from(u32::from(early) & !255));
    let network = Network::with(&namespace.cluster, &["--subnet", &subnet])?;
    let client = Client::of(&namespace)
        .docker(&[&ADMIN[..], &["--network", &network.0]].concat())
        .start(&[])?;
    let app = App::idle(&client)?;
    assert_eq!(app.sh("echo $EARLY_SERVICE_HOST")?, early.to_string());
    assert_eq!(app.get(&format!("http://{early}:7001"))?, "thing1");

    namespace.apply(&service("late", late))?;
    eventually("the late one in the cluster", || {
        Caller::new(&namespace).get("http://late:7001")
    })?;
    let end = app.connection(&late.to_string(), 7001)?;
    assert!(
        !end.contains("connected"),
        "nobody has handed it out: {end}"
    );
    assert_eq!(app.get("http://late:7001")?, "thing1");
    // First those that are on the network.
    drop((app, client));
    drop(network);
    Ok(())
}

/// Two addresses of the cluster's Services that none has, in a subnet whose first addresses are Docker's to give.
fn free_addresses(namespace: &Namespace) -> Result<[Ipv4Addr; 2]> {
    let used = namespace.kubectl("get services -A -o jsonpath={.items[*].spec.clusterIP}")?;
    let one: Ipv4Addr = namespace
        .kubectl("get service thing1 -o jsonpath={.spec.clusterIP}")?
        .parse()?;
    let mut free = (100..250)
        .map(|last| Ipv4Addr::from(u32::from(one) & !255 | last))
        .filter(|address| !used.split(' ').any(|used| used == address.to_string()));
    let mut next = || free.next().context("a free address");
    Ok([next()?, next()?])
}
