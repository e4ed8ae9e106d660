//! Resolvers of every kind, and all that nameservers can say and do.

use anyhow::ensure;
use std::net::Ipv4Addr;
use tests::app::{App, IMAGE, USERS};
use tests::caller::Caller;
use tests::client::{ADMIN, Client};
use tests::command::{Background, eventually};
use tests::manifests::{pod, service_for, service_for_both, target_with};
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::programs::{FETCH, PROGRAMS, RUNTIMES, run};
use tests::shell::Shell;

const IDLE: [&str; 2] = ["sleep", "infinity"];
/// Clients of HTTP of the image [`RUNTIMES`].
const CLIENTS: [&str; 4] = ["/web-go", "/web-musl", "node /web.mjs", "java Web"];

/// A container of the target's pod to look from.
fn beside() -> String {
    format!("{{name: beside, image: '{IMAGE}', command: [sleep, infinity]}}")
}

/// By each name of the Service and by the addresses of it and of the pod; and what nobody has is unknown to all of them.
#[test]
fn d4_o1_http_clients_of_every_runtime() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let client = Client::transparent(&namespace, &[])?;
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
    for program in CLIENTS {
        let got = runtimes.sh(&format!("{program} get {}", urls.join(" ")))?;
        assert_eq!(got, pages, "{program}");
    }
    for user in USERS {
        let runtimes = App::by(&client, user, RUNTIMES, &IDLE)?;
        for program in CLIENTS {
            let got = runtimes.sh(&format!("{program} get {}", urls[0]))?;
            assert_eq!(got, "thing1", "{program} {user:?}");
        }
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
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    namespace.apply(&service_for("moving", 80, "thing1", 80))?;
    namespace.answers("http://moving", "thing1")?;
    let client = Client::transparent(&namespace, &[])?;
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
fn d1_d3_records_of_every_type() -> Outcome {
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
    let resolv_conf = format!("dnsConfig: {{nameservers: [{address}]}}");
    namespace.apply(&target_with(
        &["dnsPolicy: None", &resolv_conf],
        &[&beside()],
    )?)?;
    namespace.rolled_out()?;
    let client = Client::transparent(&namespace, &[])?;
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

/// The nameserver that the pod asks first keeps silent: names are found all the same, many at once, in both modes, whatever resolver asks, and also
/// by the pod for whom it dials.
#[test]
fn d5_a_nameserver_that_does_not_answer() -> Outcome {
    let namespace = Namespace::new()?.with_things()?;
    let script = "import http.server, socket
silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
silent.bind(('', 53))
http.server.test(http.server.SimpleHTTPRequestHandler, port=80)";
    namespace.apply(&pod("silent", IMAGE, &["python3", "-c", script], 80, ""))?;
    namespace.ready("pod/silent")?;
    let silent = namespace.kubectl("get pod silent -o jsonpath={.status.podIP}")?;
    let good =
        namespace.kubectl("get service -n kube-system kube-dns -o jsonpath={.spec.clusterIP}")?;
    let domain = "svc.cluster.local";
    let resolv_conf = format!(
        "dnsConfig: {{nameservers: [{silent}, {good}], searches: [{}.{domain}, {domain}], options: [{{name: ndots, value: '5'}}]}}",
        namespace.name
    );
    namespace.apply(&target_with(
        &["dnsPolicy: None", &resolv_conf],
        &[&beside()],
    )?)?;
    namespace.rolled_out()?;
    let there = Caller::of(&namespace, "deploy/yourcode-deployment", "beside");
    assert_eq!(there.get("http://thing1:7001")?, "thing1");

    for docker in [&ADMIN[..], &[]] {
        let client = Client::of(&namespace).docker(docker).start(&[])?;
        let runtimes = App::of(&client, RUNTIMES, &IDLE)?;
        let words = "get http://thing1:7001 http://nothing:7001";
        for program in CLIENTS {
            let got = runtimes.sh(&format!("{program} {words}"))?;
            assert_eq!(got, "thing1\nunknown", "{program} {docker:?}");
        }
        let app = App::idle(&client)?;
        // Its patience is that of a resolver with one attempt.
        let dig = format!(
            "dig +short +tries=1 +time=5 thing1.{}.{domain}",
            namespace.name
        );
        let address = app.sh(&dig)?;
        assert!(address.parse::<Ipv4Addr>().is_ok(), "{address}");
        let many = "seq 100 | xargs -P 100 -I N getent hosts thing1 | grep -c thing1";
        assert_eq!(app.sh(many)?, "100", "{docker:?}");
        let by_socks =
            "curl -sS --fail --max-time 10 --socks5-hostname 127.0.0.1:1080 http://thing2:7002";
        assert_eq!(app.sh(by_socks)?, "thing2");
    }
    Ok(())
}

/// Thousands of queries, a hundred at a time and each sent once: all are answered.
#[test]
fn d1_as_many_queries_as_a_program_likes() -> Outcome {
    const ASK: &str = "import concurrent.futures, socket, struct, sys
def ask(number):
    name = b''.join(bytes([len(label)]) + label.encode() for label in sys.argv[1].split('.'))
    query = struct.pack('!6H', number, 0x100, 1, 0, 0, 0) + name + b'\\0\\0\\1\\0\\1'
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(20)
        asking.connect(('127.0.0.1', 53))
        asking.send(query)
        answer = asking.recv(512)
    return answer[:2] == query[:2] and answer[6:8] == b'\\0\\1'
with concurrent.futures.ThreadPoolExecutor(100) as several:
    print(sum(several.map(ask, range(5000))))";
    let namespace = Namespace::new()?.with_target()?;
    for docker in [&ADMIN[..], &[]] {
        let client = Client::of(&namespace).docker(docker).start(&[])?;
        let app = App::idle(&client)?;
        let said = run(&app, ASK, &["kubernetes.default.svc.cluster.local"])?;
        assert_eq!(said, "5000", "{docker:?}");
    }
    Ok(())
}
