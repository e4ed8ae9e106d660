//! Programs as they are, in joined containers (transparent mode): each with the sockets, the resolver and the protocol that it brings.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::app::App;
use tests::caller::Caller;
use tests::client::{ADMIN, Client};
use tests::command::{Background, eventually};
use tests::manifests::{self, pod, service_for};
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::programs::{CHATS, DATABASE, DATAGRAMS, FETCH, PROGRAMS, RUNTIMES, python, run};
use tests::shell::Shell;

const IDLE: [&str; 2] = ["sleep", "infinity"];
const DATABASE_HOST: &str = "somewhere.someplace.cloud.example.com";

fn namespace() -> Outcome<Namespace> {
    Ok(Namespace::new()?.with_things()?.with_target()?)
}

/// A client with NET_ADMIN.
fn client(namespace: &Namespace, options: &[&str]) -> Result<Client> {
    Client::of(namespace).docker(&ADMIN).start(options)
}

/// The Service `name` at `port`, for TCP and for UDP.
fn service_for_both(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{name: {name}}}
  ports:
  - {{name: tcp, protocol: TCP, port: {port}}}
  - {{name: udp, protocol: UDP, port: {port}}}
---
"
    )
}

/// By each name of the Service and by the addresses of it and of the pod; and what nobody has is unknown to all of them.
#[test]
fn d4_o1_http_clients_of_every_runtime() -> Outcome {
    let namespace = namespace()?;
    let client = client(&namespace, &[])?;
    let service = namespace.kubectl("get service thing1 -o jsonpath={.spec.clusterIP}")?;
    let pod = namespace.kubectl("get pod thing1 -o jsonpath={.status.podIP}")?;
    let full = format!("thing1.{}.svc.cluster.local", namespace.name);
    let urls = [
        "http://thing1:7001".to_owned(),
        format!("http://thing1.{}:7001", namespace.name),
        format!("http://thing1.{}.svc:7001", namespace.name),
        format!("http://{full}:7001"),
        format!("http://{full}.:7001"),
        format!("http://{service}:7001"),
        format!("http://{pod}"),
        format!("http://nothing.{}.svc.cluster.local", namespace.name),
    ];
    let pages = ["thing1"; 7].join("\n") + "\nunknown";
    let runtimes = App::of(&client, RUNTIMES, &IDLE)?;
    for program in ["/web-go", "/web-musl", "node /web.mjs", "java Web"] {
        let got = runtimes.sh(&format!("{program} get {}", urls.join(" ")))?;
        assert_eq!(got, pages, "{program}");
    }
    let found = runtimes.sh(&format!("node /web.mjs resolve {full}"))?;
    assert_eq!(found, service, "by c-ares");
    let programs = App::of(&client, PROGRAMS, &IDLE)?;
    for library in ["requests", "asyncio"] {
        let mut words = vec![library];
        words.extend(urls.iter().map(String::as_str));
        assert_eq!(run(&programs, FETCH, &words)?, pages, "{library}");
    }
    Ok(())
}

/// A Service whose address changes, under one Java that keeps what it has found for ever and one that keeps nothing.
#[test]
fn d4_d7_java_keeps_an_address_as_long_as_it_likes() -> Outcome {
    let namespace = namespace()?;
    namespace.apply(&service_for("moving", 80, "thing1", 80))?;
    namespace.answers("http://moving", "thing1")?;
    let client = client(&namespace, &[])?;
    let app = App::of(&client, RUNTIMES, &IDLE)?;
    let java = |seconds: &str| {
        let script = format!(
            "java -Dsun.net.inetaddr.ttl={seconds} Web get http://moving /tmp/moved http://moving; echo end"
        );
        Background::start(app.exec().args(["sh", "-c", &script]))
    };
    let (mut keeping, mut asking) = (java("-1")?, java("0")?);
    for java in [&mut keeping, &mut asking] {
        java.wait_for("the page", |line| (line == "thing1").then_some(()))?;
    }
    let address = namespace.kubectl("get service moving -o jsonpath={.spec.clusterIP}")?;
    namespace.kubectl("delete service moving")?;
    // The old address still leads to the old place.
    let old = service_for("old", 80, "thing1", 80);
    namespace.apply(&old.replace("spec:", &format!("spec:\n  clusterIP: {address}")))?;
    namespace.apply(&service_for("moving", 80, "thing2", 80))?;
    namespace.answers("http://old", "thing1")?;
    namespace.answers("http://moving", "thing2")?;
    app.sh("touch /tmp/moved")?;
    for (mut java, said) in [
        (keeping, "thing1\nthing1\nend\n"),
        (asking, "thing1\nthing2\nend\n"),
    ] {
        java.wait_for("its end", |line| (line == "end").then_some(()))?;
        assert_eq!(java.said()?, said);
    }
    Ok(())
}

/// Pages by the Service and by the pod's address, and bodies that come back.
#[test]
fn i1_i2_servers_of_every_runtime() -> Outcome {
    let namespace = namespace()?;
    let ports = ["8080", "3001:8081", "3002:8082", "3003:8083"];
    let client = client(&namespace, &ports.map(|port| ["--expose", port]).concat())?;
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

    let client = client(&namespace, &["--expose", "8000", "--expose", "8001"])?;
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
    let client = client(&namespace, &[])?;
    let said = "2 greetings\n5000050000 in all\n5000050000 written";
    let runtimes = App::of(&client, RUNTIMES, &IDLE)?;
    let java = runtimes.sh(&format!("java Database {DATABASE_HOST}"))?;
    assert_eq!(java, said);
    let programs = App::of(&client, PROGRAMS, &IDLE)?;
    assert_eq!(run(&programs, DATABASE, &[DATABASE_HOST])?, said);
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
    let client = client(&namespace, &[])?;
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

    let client = client(&namespace, &["--expose", "5201", "--expose", "5201/udp"])?;
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

    let client = client(&namespace, &["--expose", "4433/udp"])?;
    let app = App::of(&client, PROGRAMS, &["sh", "-ec", serve])?;
    assert_eq!(app.sh(&fetch("quic"))?, peer.sh(sum)?);
    let row = ["probe", "echo", "9000", "in_a_row"];
    assert_eq!(run(&app, DATAGRAMS, &row)?, "in_a_row: 2000 of 1200 bytes");
    eventually("the code", || app.sh(&fetch("127.0.0.1")))?;
    let address = namespace.target_address()?;
    assert_eq!(peer.sh(&fetch(&address))?, app.sh(sum)?);
    Ok(())
}

/// A record of each type that a zone file can hold, at one name.
const RECORDS: [&str; 36] = [
    "A 198.18.77.1",
    "AAAA fd00::77",
    "AFSDB 1 host",
    "APL 1:192.0.2.0/24",
    "CAA 0 issue \"ca.example\"",
    "CDNSKEY 256 3 13 AQIDBA==",
    "CDS 12345 13 2 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "CERT 3 0 0 AQIDBA==",
    "CSYNC 66 3 A NS",
    "DHCID AQIDBA==",
    "DNSKEY 256 3 13 AQIDBA==",
    "EUI48 00-00-5e-00-53-2a",
    "EUI64 00-00-5e-ef-10-00-00-2a",
    "HINFO \"PC\" \"Linux\"",
    "HTTPS 1 . alpn=\"h2,h3\" ipv4hint=198.18.77.1",
    "IPSECKEY 10 1 2 192.0.2.38 AQIDBA==",
    "KX 10 host",
    "L32 10 10.1.2.0",
    "L64 10 2001:db8:1140:1000",
    "LOC 51 30 12.748 N 0 7 39.611 W 0.00m 0.00m 0.00m 0.00m",
    "LP 10 host",
    "MX 10 host",
    "NAPTR 100 50 \"s\" \"SIP+D2U\" \"\" _sip._udp",
    "NID 10 14:4fff:ff20:ee64",
    "OPENPGPKEY AQIDBA==",
    "PTR host",
    "RP admin host",
    "SMIMEA 3 0 0 d2abde240d7cd3ee6b4b28c54df034b9",
    "SPF \"v=spf1 -all\"",
    "SRV 0 0 80 host",
    "SSHFP 1 1 123456789abcdef67890123456789abcdef67890",
    "SVCB 1 host port=8443",
    "TLSA 3 1 1 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "TXT \"words and spaces\"",
    "TYPE65280 \\# 4 01020304",
    "URI 10 1 \"https://host.example/\"",
];

/// Whole messages, from a nameserver that has all of it: those that `d1_answers_are_those_of_the_pod` cannot have from the cluster's.
#[test]
fn d1_records_of_every_type() -> Outcome {
    let namespace = Namespace::new()?;
    let records: String = RECORDS.iter().map(|r| format!("all {r}\n")).collect();
    let large: String = (0..40).map(|n| format!("large TXT {n:0200}\n")).collect();
    let script = format!(
        "cat >/zone <<'END'
$ORIGIN types.example.
$TTL 60
@ SOA ns admin 1 60 60 60 5
@ NS ns
ns A 198.18.77.2
host A 198.18.77.3
alias CNAME all
tree DNAME types.example.
{records}{large}END
cat >/nsd.conf <<'END'
server:
  pidfile: \"\"
  username: \"\"
remote-control:
  control-enable: no
zone:
  name: types.example
  zonefile: /zone
END
exec nsd -d -c /nsd.conf"
    );
    let server = pod("nameserver", PROGRAMS, &["sh", "-c", &script], 53, "");
    namespace.apply(&(service_for_both("nameserver", 53) + &server))?;
    namespace.ready("pod/nameserver")?;
    let address = namespace.kubectl("get service nameserver -o jsonpath={.spec.clusterIP}")?;
    let containers = format!(
        "      dnsPolicy: None
      dnsConfig: {{nameservers: [{address}]}}
      containers:
      - {{name: beside, image: '{}', command: [sleep, infinity]}}
",
        tests::app::IMAGE
    );
    namespace.apply(&manifests::target()?.replace("      containers:\n", &containers))?;
    namespace.rolled_out()?;
    let client = client(&namespace, &[])?;
    let (app, beside) = (
        App::idle(&client)?,
        Caller::of(&namespace, "deploy/yourcode-deployment", "beside"),
    );
    let types = RECORDS.map(|record| record.split(' ').next().unwrap_or_default());
    let mut queries: Vec<_> = types.map(|t| format!("all.types.example {t}")).into();
    queries.extend(
        [
            "types.example SOA",
            "types.example NS",
            "alias.types.example CNAME",
            "alias.types.example MX",
            "host.tree.types.example A",
            "tree.types.example DNAME",
            "large.types.example TXT",
            "all.types.example ANY",
            "all.types.example RRSIG",
            "nothing.types.example TYPE65281",
        ]
        .map(str::to_owned),
    );
    // All of the message but what is another in each.
    let script = format!(
        "while read -r query; do
  for way in +notcp +tcp +dnssec; do
    dig +nocmd +noall +comments +question +answer +authority +additional +nocookie $way $query
  done
done <<'END' | sed 's/, id: [0-9]*$//' | tr -s '\\t' ' '
{}
END",
        queries.join("\n")
    );
    let there = eventually("the nameserver", || {
        let there = beside.sh(&script)?;
        for of in types {
            let record = format!("all.types.example. 60 IN {of} ");
            ensure!(there.contains(&record), "no {of}:\n{there}");
        }
        Ok(there)
    })?;
    assert_eq!(app.sh(&script)?, there);
    Ok(())
}
