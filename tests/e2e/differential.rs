//! One program in the target's pod and in a joined container (transparent mode): what it finds out of names, addresses, connections and
//! datagrams is the same, but for what `docs/reference.md` lists ("What your program sees").

mod listed;

use anyhow::{Context, Result, ensure};
use listed::{DIFFERENCES, Difference, WITHOUT_IPV6};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use tests::app::{App, IMAGE};
use tests::caller::Caller;
use tests::client::{ADMIN, Client};
use tests::command::eventually;
use tests::manifests::{self, repository};
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::programs::{self, DIFFERENTIAL};

/// This test, as the reference names it.
const TEST: &str = "differential::w1_a_program_finds_out_the_same_as_in_the_pod";

/// How many cases there are. A case that is lost would not be missed otherwise, as it is lost on both sides.
const CASES: usize = 2421;

/// What some cases come to in the pod: two reports that are broken in the same way would be the same.
const SANE: &[(&str, &str)] = &[
    ("getaddrinfo UNSPEC 'peer'", "<peer>"),
    (
        "getaddrinfo UNSPEC CANONNAME 'renamed'",
        "canonical peer.NS.svc.cluster.local; <peer>",
    ),
    ("getaddrinfo UNSPEC 'headless'", "<peer-0>, <peer-1>"),
    ("getaddrinfo INET 'crowd'", "100 of them"),
    ("getaddrinfo UNSPEC 'external'", "<cloud>"),
    ("getaddrinfo UNSPEC 'ALIAS.of.the.pod'", "<peer>"),
    ("getaddrinfo INET6 'peer'", "EAI_NODATA"),
    ("getaddrinfo UNSPEC 'nowhere'", "EAI_NONAME"),
    (
        "gethostbyaddr <kubernetes>",
        "kubernetes.default.svc.cluster.local; <kubernetes>",
    ),
    (
        "dig _ask._tcp.peer.NS.svc.cluster.local. SRV",
        "QUERY NOERROR; qr aa rd; EDNS: version: 0, flags:; udp: 1232; \
         answer: _ask._tcp.peer.NS.svc.cluster.local. IN SRV 0 100 9001 peer.NS.svc.cluster.local.; \
         additional: peer.NS.svc.cluster.local. IN A <peer>",
    ),
    (
        "dig nowhere.NS.svc.cluster.local. A",
        "QUERY NXDOMAIN; qr aa rd; EDNS: version: 0, flags:; udp: 1232; \
         authority: cluster.local. IN SOA ns.dns.cluster.local. hostmaster.cluster.local.",
    ),
    (
        "tcp ask create_connection 'peer'",
        "<peer> 9001 peer-0 hello",
    ),
    (
        "tcp ask mapped '<peer-1>'",
        "::ffff:<peer-1> 9001 peer-1 hello",
    ),
    (
        "tcp ask non_blocking 'headless'",
        "one of them 9001 one of them hello; connecting again: [0, 'EISCONN']",
    ),
    ("tcp ask fast_open 'alias'", "<peer> 9001 peer-0 fast hello"),
    (
        "tcp sidecar blocking '127.0.0.1'",
        "127.0.0.1 9001 POD hello",
    ),
    (
        "tcp fails in the cluster, blocking, a closed port of a pod",
        "ECONNREFUSED",
    ),
    (
        "tcp fails in the cluster, blocking, a Service without endpoints",
        "ECONNREFUSED",
    ),
    (
        "tcp fails in the cluster, blocking, no pod's address",
        "EHOSTUNREACH",
    ),
    (
        "tcp fails in the cluster, connect_ex, no pod's address of IPv6",
        "EHOSTUNREACH",
    ),
    ("getaddrinfo UNSPEC 'six'", "<six>"),
    (
        "tcp ask non_blocking 'six'",
        "<six> 9001 peer-0 hello; connecting again: [0, 'EISCONN']",
    ),
    ("tcp bulk 'six'", "4194304 bytes 2b078110, the same: True"),
    (
        "tcp ask create_connection 'dual'",
        "<dual> 9001 peer-0 hello",
    ),
    ("udp udp_connected '<six-peer-0>'", "<six-peer-0> b'hello'"),
    ("tcp greeted 'peer'", "220 peer-0; hello; '', end"),
    ("tcp bulk 'peer'", "4194304 bytes 2b078110, the same: True"),
    ("tcp many 'peer'", "peer-0 its own number"),
    ("tcp in turns 'peer'", "[4, 3, 2, 1, 0]"),
    (
        "tcp half-closed after 100000 bytes 'peer'",
        "'100000 bytes d69e6898', end; sending then: EPIPE",
    ),
    (
        "tcp reset 'peer'",
        "ECONNRESET; sending: EPIPE; peer: ENOTCONN",
    ),
    ("tcp answered, then reset '<peer-0>'", "all answers: True"),
    ("tcp sent, then reset '<peer-0>'", "all bytes: True"),
    ("tcp after_servers_end 'peer'", "1000 bytes, end; '', end"),
    ("tcp aborted 'peer'", "0 bytes, ECONNRESET; noted"),
    ("tcp from which address '<peer-0>'", "the pod's: True"),
    (
        "tcp two connections from one port",
        "peer-0 hello; peer-1 hello",
    ),
    ("tcp startup of the database 'external'", "<cloud> b'N'"),
    (
        "tcp TLS of the API server 'kubernetes.default'",
        "TLSv1.3 HTTP/1.0 200 OK",
    ),
    ("udp udp_connected 'peer'", "<peer> b'hello'"),
    ("udp 65507 bytes '<peer-0>'", "back: True"),
    ("udp silent to_one 'peer'", "nothing"),
    (
        "udp fails in the cluster, to_one, a closed port of a pod",
        "ECONNREFUSED",
    ),
    ("environment PEER_SERVICE_HOST", "<peer>"),
];

/// Peers of all kinds; NAMESPACE, PROGRAM (a ConfigMap's data), PORTS and CROWD (endpoints) are put in.
const PEERS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: programs}
data: PROGRAM
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: peer}
spec:
  serviceName: headless
  replicas: 2
  podManagementPolicy: Parallel
  selector: {matchLabels: {name: peer}}
  template:
    metadata: {labels: {name: peer}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: peer
        image: telepresence-test/yourcode:1
        command: [python3, /programs/differential.py, serve]
        volumeMounts: [{name: programs, mountPath: /programs}]
        readinessProbe: {tcpSocket: {port: 9000}, periodSeconds: 1}
      volumes: [{name: programs, configMap: {name: programs}}]
---
apiVersion: v1
kind: Service
metadata: {name: peer}
spec:
  # One of them, as some cases are of several connections.
  selector: {statefulset.kubernetes.io/pod-name: peer-0}
  ports: PORTS
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, selector: {name: peer}, ports: [{name: ask, port: 9001}]}
---
apiVersion: v1
kind: Service
metadata: {name: six}
spec:
  ipFamilies: [IPv6]
  selector: {statefulset.kubernetes.io/pod-name: peer-0}
  ports: PORTS
---
apiVersion: v1
kind: Service
metadata: {name: dual}
spec:
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv6, IPv4]
  selector: {statefulset.kubernetes.io/pod-name: peer-0}
  ports: PORTS
---
apiVersion: v1
kind: Service
metadata: {name: empty}
spec:
  selector: {name: nobody}
  ports: [{name: ask, port: 9001}, {name: echo, port: 9001, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: hollow}
spec: {clusterIP: None, selector: {name: nobody}, ports: [{name: ask, port: 9001}]}
---
apiVersion: v1
kind: Service
metadata: {name: renamed}
spec: {type: ExternalName, externalName: peer.NAMESPACE.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: external}
spec: {type: ExternalName, externalName: somewhere.someplace.cloud.example.com}
---
apiVersion: v1
kind: Service
metadata: {name: dangling}
spec: {type: ExternalName, externalName: nowhere.example.com}
---
apiVersion: v1
kind: Service
metadata: {name: crowd}
spec: {clusterIP: None, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: crowd, labels: {kubernetes.io/service-name: crowd}}
addressType: IPv4
endpoints: CROWD
ports: [{port: 80}]
";

fn peers(namespace: &Namespace) -> String {
    let tcp = (9001..=9016).map(|port| match port {
        9001 => json!({"name": "ask", "port": port}),
        _ => json!({"name": format!("at-{port}"), "port": port}),
    });
    // Nobody listens at the last one.
    let udp = [9001, 9013, 9016, 9020]
        .map(|port| json!({"name": format!("udp-at-{port}"), "port": port, "protocol": "UDP"}));
    let closed = json!({"name": "closed", "port": 9020});
    let ports: Vec<_> = tcp.chain([closed]).chain(udp).collect();
    let crowd: Vec<_> = (1..=100)
        .map(|last| json!({"addresses": [format!("192.0.2.{last}")]}))
        .collect();
    PEERS
        .replace("NAMESPACE", &namespace.name)
        .replace("PORTS", &json!(ports).to_string())
        .replace("CROWD", &json!(crowd).to_string())
        .replace(
            "PROGRAM",
            &json!({"differential.py": DIFFERENTIAL}).to_string(),
        )
}

/// The README's target with an alias for `peer`, and a container beside the proxy: it has the pod's network, and is a server itself.
fn target(peer: &str) -> Result<String> {
    let alias = format!("hostAliases: [{{ip: {peer}, hostnames: [alias.of.the.pod, alias]}}]");
    let volumes = "volumes: [{name: programs, configMap: {name: programs}}]";
    let sidecar = format!(
        "{{name: sidecar, image: '{IMAGE}', command: [python3, /programs/differential.py, serve], \
         volumeMounts: [{{name: programs, mountPath: /programs}}], \
         readinessProbe: {{tcpSocket: {{port: 9000}}, periodSeconds: 1}}}}"
    );
    manifests::target_with(&[&alias, volumes], &[&sidecar])
}

/// What `differential.py` has to know.
fn facts(namespace: &Namespace) -> Result<String> {
    let service = |line: &str| {
        let line = format!("get service {line} -o jsonpath={{.spec.clusterIP}}");
        namespace.kubectl(&line)
    };
    let pod =
        |name: &str| namespace.kubectl(&format!("get pod {name} -o jsonpath={{.status.podIP}}"));
    let six = |pod: &str| {
        namespace.kubectl(&format!(
            "get pod {pod} -o jsonpath={{.status.podIPs[1].ip}}"
        ))
    };
    let target = namespace.target_pod()?;
    let name = target.pointer("/metadata/name").context("a name")?;
    let facts = json!({
        "namespace": namespace.name,
        "pod": name,
        "addresses": {
            "peer": service("peer")?,
            "empty": service("empty")?,
            "peer-0": pod("peer-0")?,
            "peer-1": pod("peer-1")?,
            "pod": namespace.target_address()?,
            "kubernetes": service("-n default kubernetes")?,
            "kube-dns": service("-n kube-system kube-dns")?,
            "cloud": "198.18.0.10",
            "six": service("six")?,
            "six-peer-0": six("peer-0")?,
            "six-pod": six(name.as_str().context("text")?)?,
            "dual": service("dual")?,
            "dual-4": namespace.kubectl("get service dual -o jsonpath={.spec.clusterIPs[1]}")?,
        },
    });
    Ok(facts.to_string())
}

/// The cases and what they come to.
type Report<'a> = Vec<(&'a str, &'a str)>;

fn report(text: &str) -> Result<Report<'_>> {
    let cases = text.lines().map(|line| line.split_once(": "));
    cases.collect::<Option<_>>().context("CASE: OUTCOME")
}

/// Whether the pod's report has what it must have.
fn sanity(there: &Report<'_>) -> Result<()> {
    let missing: Vec<_> = SANE.iter().filter(|line| !there.contains(line)).collect();
    let cases: BTreeSet<_> = missing.iter().map(|(case, _)| case).collect();
    let instead: Vec<_> = there
        .iter()
        .filter(|(case, _)| cases.contains(case))
        .collect();
    ensure!(missing.is_empty(), "not {missing:?} but {instead:?}");
    Ok(())
}

/// Whether `text` is `pattern`, in which a `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            (0..=text.len())
                .filter_map(|at| text.get(at..))
                .any(|text| matches(rest, text))
        }),
    }
}

/// All that is not as it should be. What the pod says is right: here it must be the same, or differ as it is listed, no more and no less.
fn mistakes(there: &Report<'_>, here: &Report<'_>, listed: &[Difference]) -> Vec<String> {
    let mut mistakes = vec![];
    let mut met = vec![false; listed.len()];
    let mut others: BTreeMap<_, _> = here.iter().copied().collect();
    for (case, pod) in there {
        let mut expected = *pod;
        for (difference, met) in listed.iter().zip(&mut met) {
            if matches(difference.cases, case) && matches(difference.pod, pod) {
                expected = difference.here;
                *met = true;
            }
        }
        match others.remove(case) {
            Some(outcome) if outcome == expected => {}
            outcome => mistakes.push(format!(
                "{case}:\n    in the pod {pod}\n    here       {}\n    expected   {expected}",
                outcome.unwrap_or("it is missing")
            )),
        }
    }
    let more = others
        .keys()
        .map(|case| format!("{case}: it is not in the pod's report"));
    let unmet = listed.iter().zip(met).filter(|(_, met)| !met);
    let unmet = unmet.map(|(difference, _)| {
        let Difference { cases, pod, .. } = difference;
        format!("listed, but no case is like that: {cases}: {pod}")
    });
    mistakes.extend(more.chain(unmet));
    mistakes
}

/// The rows of the reference that name this test.
fn rows() -> Result<BTreeSet<String>> {
    let reference = fs::read_to_string(repository().join("docs/reference.md"))?;
    let rows = reference
        .lines()
        .filter(|line| line.starts_with('|') && line.contains(TEST));
    let firsts = rows.filter_map(|row| Some(row.split('|').nth(1)?.trim().to_owned()));
    Ok(firsts.collect())
}

#[test]
fn w1_a_program_finds_out_the_same_as_in_the_pod() -> Outcome {
    let all = [DIFFERENCES, WITHOUT_IPV6].concat();
    let listed: BTreeSet<_> = all.iter().map(|d| d.row.to_owned()).collect();
    assert_eq!(rows()?, listed, "rows of the reference");

    let namespace = Namespace::new()?;
    namespace.apply(&(peers(&namespace) + "---\n" + &manifests::service()?))?;
    namespace.kubectl("rollout status statefulset/peer --timeout=90s")?;
    // It is told of Services that are there when it starts.
    let peer = namespace.kubectl("get service peer -o jsonpath={.spec.clusterIP}")?;
    namespace.apply(&target(&peer)?)?;
    namespace.rolled_out()?;
    let pod = Caller::of(&namespace, "deploy/yourcode-deployment", "sidecar");
    let facts = facts(&namespace)?;

    // Names and Services are there some time after they were made.
    let sane = SANE.iter().map(|(case, _)| *case);
    let words: Vec<_> = ["probe", &facts].into_iter().chain(sane).collect();
    eventually("what is there in the cluster", || {
        sanity(&report(&programs::run(&pod, DIFFERENTIAL, &words)?)?)
    })?;

    let with_ipv6 = [
        &ADMIN[..],
        &["--sysctl", "net.ipv6.conf.all.disable_ipv6=0"],
    ]
    .concat();
    let probe = ["probe", &facts];
    let there = programs::run(&pod, DIFFERENTIAL, &probe)?;
    let there = report(&there)?;
    assert_eq!(there.len(), CASES, "cases");
    sanity(&there)?;
    for (docker, listed) in [(&with_ipv6[..], DIFFERENCES), (&ADMIN, &all)] {
        let client = Client::of(&namespace).docker(docker).start(&[])?;
        let here = programs::run(&App::idle(&client)?, DIFFERENTIAL, &probe)?;
        let mistakes = mistakes(&there, &report(&here)?, listed);
        assert!(
            mistakes.is_empty(),
            "{docker:?}: {} differ:\n{}",
            mistakes.len(),
            mistakes.join("\n")
        );
    }
    Ok(())
}
