//! Programs as they are, in joined containers (transparent mode): each with the sockets and the protocol that it brings.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::app::{App, USERS};
use tests::caller::Caller;
use tests::client::Client;
use tests::command::{Background, eventually};
use tests::manifests::{pod, service_for, service_for_both};
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::programs::{CHATS, DATABASE, DATAGRAMS, PROGRAMS, RUNTIMES, python, run};
use tests::shell::Shell;

const IDLE: [&str; 2] = ["sleep", "infinity"];
const DATABASE_HOST: &str = "somewhere.someplace.cloud.example.com";

fn namespace() -> Outcome<Namespace> {
    Ok(Namespace::new()?.with_things()?.with_target()?)
}

/// Pages by the Service and by the pod's address, and bodies that come back.
#[test]
fn i1_i2_servers_of_every_runtime() -> Outcome {
    let namespace = namespace()?;
    let ports = ["8080", "3001:8081", "3002:8082", "3003:8083"];
    let client = Client::transparent(&namespace, &ports.map(|port| ["--expose", port]).concat())?;
    let serve = |command: &str| {
        let words: Vec<_> = command.split(' ').collect();
        App::of(&client, RUNTIMES, &words)
    };
    let _servers = [
        serve("/web-go serve 8080")?,
        serve("node /web.mjs serve 3001")?,
        serve("java Web serve 3002")?,
        serve("/web-musl serve 3003")?,
    ];
    let address = namespace.target_address()?;
    namespace.answers("http://yourcode-service:8080", "Go")?;
    for (port, name) in [(8080, "Go"), (8081, "Node"), (8082, "Java"), (8083, "musl")] {
        namespace.answers(&format!("http://{address}:{port}"), name)?;
    }
    let caller = Caller::new(&namespace);
    caller.sh("head -c 4000000 /dev/urandom >/tmp/body")?;
    for port in [8080, 8081, 8082] {
        caller.sh(&format!(
            "curl -sS --fail --max-time 60 --data-binary @/tmp/body http://{address}:{port} | cmp - /tmp/body"
        ))?;
    }
    Ok(())
}

/// The same programs at both ends: a server in a pod and one in a joined container, each called from the other side.
#[test]
fn i6_websocket_and_grpc_both_ways() -> Outcome {
    const WEBSOCKET: &str = "text: text
4 MiB: True
a ping is answered
a thousand, both ways at once: True
closed: 1000";
    const GRPC: &str = "4 MiB: True
a thousand, both ways at once: True
an unknown method: UNIMPLEMENTED";
    let namespace = namespace()?;
    let peer = pod(
        "peer",
        PROGRAMS,
        &python(CHATS, &["serve", "9000", "9001"]),
        9000,
        "",
    );
    let services =
        service_for("websocket", 80, "peer", 9000) + &service_for("grpc", 80, "peer", 9001);
    namespace.apply(&(services + &peer))?;
    namespace.ready("pod/peer")?;
    let peer = Caller::of(&namespace, "pod/peer", "peer");
    for name in ["websocket", "grpc"] {
        eventually(name, || run(&peer, CHATS, &[name, name, "80"]))?;
    }

    let client = Client::transparent(&namespace, &["--expose", "8000", "--expose", "8001"])?;
    let app = App::of(
        &client,
        PROGRAMS,
        &python(CHATS, &["serve", "8000", "8001"]),
    )?;
    // It comes after the other one.
    let local = ["websocket", "127.0.0.1", "8000"];
    eventually("the code", || run(&app, CHATS, &local))?;
    assert_eq!(
        run(&app, CHATS, &["websocket", "websocket", "80"])?,
        WEBSOCKET
    );
    assert_eq!(run(&app, CHATS, &["grpc", "grpc", "80"])?, GRPC);
    let address = namespace.target_address()?;
    assert_eq!(
        run(&peer, CHATS, &["websocket", &address, "8000"])?,
        WEBSOCKET
    );
    assert_eq!(run(&peer, CHATS, &["grpc", &address, "8001"])?, GRPC);
    Ok(())
}

/// Rows by portions, and a hundred thousand written: by JDBC and by psycopg2.
#[test]
fn o6_the_clouds_database_by_drivers() -> Outcome {
    let namespace = namespace()?;
    let client = Client::transparent(&namespace, &[])?;
    let said = "2 greetings\n5000050000 in all\n5000050000 written";
    for user in USERS {
        let runtimes = App::by(&client, user, RUNTIMES, &IDLE)?;
        let java = runtimes.sh(&format!("java Database {DATABASE_HOST}"))?;
        assert_eq!(java, said, "{user:?}");
        let programs = App::by(&client, user, PROGRAMS, &IDLE)?;
        assert_eq!(
            run(&programs, DATABASE, &[DATABASE_HOST])?,
            said,
            "{user:?}"
        );
    }
    Ok(())
}

/// Commands, ten thousand at once, and a connection on which the server speaks when something happens.
#[test]
fn o1_redis() -> Outcome {
    let namespace = namespace()?;
    let command = ["redis-server", "--save", "", "--protected-mode", "no"];
    let server = pod("redis", PROGRAMS, &command, 6379, "");
    namespace.apply(&(service_for("redis", 6379, "redis", 6379) + &server))?;
    namespace.ready("pod/redis")?;
    let there = Caller::of(&namespace, "pod/redis", "redis");
    eventually("the Service", || there.sh("redis-cli -h redis ping"))?;
    let client = Client::transparent(&namespace, &[])?;
    let app = App::of(&client, PROGRAMS, &IDLE)?;
    assert_eq!(app.sh("redis-cli -h redis set greeting hello")?, "OK");
    assert_eq!(there.sh("redis-cli get greeting")?, "hello");
    let filled = app.sh("seq 10000 | sed 's/.*/SET key& value&/' | redis-cli -h redis --pipe")?;
    assert!(filled.ends_with("errors: 0, replies: 10000"), "{filled}");
    assert_eq!(
        app.sh("redis-cli -h redis --scan --pattern 'key*' | wc -l")?,
        "10000"
    );
    let words = ["redis-cli", "-h", "redis", "subscribe", "news"];
    let mut subscriber = Background::start(app.exec().args(words))?;
    eventually("the subscriber", || {
        let told = there.sh("redis-cli publish news extra")?;
        ensure!(told == "1", "{told}");
        Ok(())
    })?;
    subscriber.wait_for("the news", |line| (line == "extra").then_some(()))?;
    Ok(())
}

/// What iperf3 says at the end of a run.
fn iperf3(place: &impl Shell, options: &str) -> Result<Value> {
    let text = place.sh(&format!("iperf3 --json --connect-timeout 10000 {options}"))?;
    let report: Value = serde_json::from_str(&text)?;
    ensure!(report["error"].is_null(), "{text}");
    Ok(report["end"].clone())
}

/// A number of its report.
fn number(end: &Value, pointer: &str) -> Result<f64> {
    let number = end.pointer(pointer).and_then(Value::as_f64);
    number.with_context(|| format!("{pointer}: {end}"))
}

/// Bulk in both directions, on one connection and on four, and datagrams at a rate that any machine keeps up with: all to a pod and from
/// one.
#[test]
fn o1_o14_i1_iperf3() -> Outcome {
    const BYTES: f64 = 67_108_864.0;
    const UDP_BYTES: f64 = 524_288.0;
    let both = |run: &dyn Fn(&str) -> Result<Value>, host: &str| -> Outcome {
        for direction in ["", "--reverse", "--parallel 4"] {
            let end = run(&format!("--client {host} --bytes {BYTES} {direction}"))?;
            assert!(number(&end, "/sum_sent/bytes")? >= BYTES, "{end}");
            // It stops counting when it is told of the end, and that overtakes what is still under way.
            assert!(number(&end, "/sum_received/bytes")? > 0.0, "{end}");
        }
        for direction in ["", "--reverse"] {
            let end = run(&format!(
                "--client {host} --udp --bitrate 2M --length 1200 --bytes {UDP_BYTES} {direction}"
            ))?;
            assert!(number(&end, "/sum/bytes")? >= UDP_BYTES, "{end}");
            assert!(number(&end, "/sum/lost_percent")? < 5.0, "{end}");
        }
        Ok(())
    };
    let namespace = namespace()?;
    let server = ["iperf3", "--server", "--forceflush"];
    let peer = pod("iperf3", PROGRAMS, &server, 5201, "");
    namespace.apply(&(service_for_both("iperf3", 5201) + &peer))?;
    namespace.ready("pod/iperf3")?;
    let peer = Caller::of(&namespace, "pod/iperf3", "iperf3");
    for kind in ["", "--udp"] {
        let options = format!("--client iperf3 --bytes 10K {kind}");
        eventually("the Service", || iperf3(&peer, &options))?;
    }

    let client = Client::transparent(&namespace, &["--expose", "5201", "--expose", "5201/udp"])?;
    let app = App::of(&client, PROGRAMS, &server)?;
    both(&|options| iperf3(&app, options), "iperf3")?;
    eventually("the code", || {
        let log = app.log()?;
        ensure!(log.contains("Server listening"), "{log}");
        Ok(())
    })?;
    both(
        &|options| iperf3(&peer, options),
        &namespace.target_address()?,
    )
}

/// HTTP/3, with the server in a pod and in a joined container; and datagrams of the size that QUIC begins with.
#[test]
fn o14_i1_quic_both_ways() -> Outcome {
    let namespace = namespace()?;
    let serve = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=quic -keyout /key -out /certificate
mkdir /www && head -c 8388608 /dev/urandom >/www/bulk
exec gtlsserver --quiet --htdocs=/www '*' 4433 /key /certificate";
    let quic = format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: quic, labels: {{name: quic}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {{name: quic, image: '{PROGRAMS}', command: [sh, -ec, {}]}}
---
",
        Value::from(serve)
    );
    let command = python(DATAGRAMS, &["serve", "9000"]);
    let echo = pod("echo", PROGRAMS, &command, 9000, "");
    let services = service_for_both("quic", 4433) + &service_for_both("echo", 9000);
    namespace.apply(&(services + &quic + &echo))?;
    namespace.ready("pod/quic pod/echo")?;
    let peer = Caller::of(&namespace, "pod/quic", "quic");
    let sum = "sha256sum </www/bulk";
    let fetch = |host: &str| {
        format!(
            "rm -rf /tmp/got && mkdir /tmp/got && timeout 60 gtlsclient --quiet --exit-on-all-streams-close --download=/tmp/got {host} 4433 https://{host}/bulk && sha256sum </tmp/got/bulk"
        )
    };
    let got = eventually("the Service", || peer.sh(&fetch("quic")))?;
    assert_eq!(got, peer.sh(sum)?);

    let client = Client::transparent(&namespace, &["--expose", "4433/udp"])?;
    let app = App::of(&client, PROGRAMS, &["sh", "-ec", serve])?;
    assert_eq!(app.sh(&fetch("quic"))?, peer.sh(sum)?);
    let row = ["probe", "echo", "9000", "in_a_row"];
    assert_eq!(run(&app, DATAGRAMS, &row)?, "in_a_row: 2000 of 1200 bytes");
    eventually("the code", || app.sh(&fetch("127.0.0.1")))?;
    let address = namespace.target_address()?;
    assert_eq!(peer.sh(&fetch(&address))?, app.sh(sum)?);
    Ok(())
}
