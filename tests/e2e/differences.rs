//! Where a program can tell that it is not in the pod: what `docs/reference.md` lists ("What your program sees") and no other test shows.
//! Each time, what the pod itself sees is looked at, too.

use anyhow::{Context, ensure};
use tests::app::{App, IMAGE};
use tests::caller::Caller;
use tests::client::Client;
use tests::command::eventually;
use tests::manifests::{self, service_for, target_with};
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::programs;
use tests::shell::{Shell, assert_reset};

/// A server whose queue of connections is full: who comes next is not answered.
const FULL: &str = "
apiVersion: v1
kind: Pod
metadata: {name: full, labels: {name: full}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: full
    image: telepresence-test/yourcode:1
    command:
    - python3
    - -c
    - |
      import pathlib, socket, time
      server = socket.create_server(('', 80), backlog=0)
      waiting = socket.create_connection(('127.0.0.1', 80))
      pathlib.Path('/full').touch()
      time.sleep(1e6)
    readinessProbe: {exec: {command: [ls, /full]}, periodSeconds: 1}
";

/// A field of the target's pod: its kernel waits for a connection for seconds, and not for two minutes (tcp(7)).
const IMPATIENT: &str = "initContainers: [{name: impatient, image: 'telepresence-test/busybox:1', securityContext: {privileged: true}, \
                         command: [sh, -c, 'echo 2 >/proc/sys/net/ipv4/tcp_syn_retries']}]";

#[test]
fn w1_a_connection_stands_before_the_far_side_has_answered() -> Outcome {
    let namespace = Namespace::new()?.with_things()?;
    namespace.apply(&target_with(&[IMPATIENT], &[])?)?;
    // Nothing listens behind the first; the second goes while its address is still known.
    let services = service_for("refusing", 80, "thing1", 81)
        + &service_for("going", 80, "thing1", 80)
        + &service_for("full", 80, "full", 80);
    namespace.apply(&(services + FULL))?;
    namespace.ready("pod/full")?;
    let client = Client::start(&namespace, &[])?;
    let (app, caller) = (App::idle(&client)?, Caller::new(&namespace));
    let told = |name: &str, reason: &str| {
        let full_name = format!("{name}.{}.svc.cluster.local", namespace.name);
        client.logged(1, &[&full_name, reason])
    };

    eventually("the refusal in the cluster", || {
        let end = caller.connection("refusing", 80)?;
        ensure!(end == "ConnectionRefusedError", "{end}");
        Ok(())
    })?;
    assert_reset(&app.connection("refusing", 80)?);
    told("refusing", "connection refused")?;

    let end = app.connection("full", 80)?;
    assert_eq!(end, "connected ConnectionResetError");
    told("full", "timed out")?;

    assert_eq!(app.get("http://going")?, "thing1");
    let line = app.sh("getent hosts going")?;
    let address = line.split(' ').next().context("an address")?;
    namespace.kubectl("delete service going")?;
    eventually("the end of the name", || {
        assert_reset(&app.connection(address, 80)?);
        told("going", "unknown name")
    })?;
    Ok(())
}

#[test]
fn w1_a_bare_address_is_reached_by_socks_alone() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let client = Client::start(&namespace, &[])?;
    client.logged(
        1,
        &[
            "intercept loopback",
            "no bare addresses",
            "--cap-add NET_ADMIN",
        ],
    )?;
    let app = App::idle(&client)?;
    let field = |object: &str, path: &str| {
        namespace.kubectl(&format!("get {object} -o jsonpath={{{path}}}"))
    };
    let pod = format!("http://{}", field("pod/thing1", ".status.podIP")?);
    let service = format!(
        "http://{}:7001",
        field("service/thing1", ".spec.clusterIP")?
    );
    for url in [pod, service] {
        assert_eq!(Caller::new(&namespace).get(&url)?, "thing1", "{url}");
        let curl = format!("curl -sS --fail --max-time 5 {url}");
        let direct = app.try_sh(&curl)?;
        assert!(
            !direct.status.success() && direct.stdout.is_empty(),
            "{url}: {direct:?}"
        );
        assert_eq!(
            app.sh(&format!("{curl} --socks5 127.0.0.1:1080"))?,
            "thing1",
            "{url}"
        );
    }
    Ok(())
}

#[test]
fn w1_udp_and_icmp_are_not_carried() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let client = Client::start(&namespace, &[])?;
    let (app, caller) = (App::idle(&client)?, Caller::new(&namespace));
    // A Service that answers by both: by its name it is reached by TCP, and by UDP it is not.
    let dig = |transport| {
        format!(
            "dig +short +time=3 +tries=1 {transport} @kube-dns.kube-system.svc.cluster.local kubernetes.default.svc.cluster.local SRV"
        )
    };
    let answer = caller.sh(&dig("+notcp"))?;
    assert!(answer.contains("kubernetes.default"), "{answer}");
    assert_eq!(app.sh(&dig("+tcp"))?, answer);
    let udp = app.try_sh(&dig("+notcp"))?;
    assert_eq!(udp.status.code(), Some(9), "no reply: {udp:?}");

    let ping = format!("ping -c 1 -W 3 {}", namespace.target_address()?);
    caller.sh(&ping)?;
    let answer = app.try_sh(&ping)?;
    assert!(!answer.status.success(), "{answer:?}");
    Ok(())
}

#[test]
fn w1_the_host_name_is_the_client_containers() -> Outcome {
    let namespace = Namespace::new()?.with_target()?;
    let client = Client::of(&namespace)
        .docker(&["--hostname", "laptop"])
        .start(&[])?;
    let app = App::idle(&client)?;
    assert_eq!(app.sh("hostname")?, "laptop");
    Ok(())
}

#[test]
fn w1_a_tcp_probe_passes_without_the_code() -> Outcome {
    let namespace = Namespace::new()?;
    let probe =
        "        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}\n        ports:\n";
    let target = manifests::target()?.replace("        ports:\n", probe);
    namespace.apply(&target)?;
    let ready = |ready: bool| {
        namespace.kubectl(&format!(
            "wait --for=condition=Ready={ready} --timeout=90s pod -l name=yourcode"
        ))
    };
    let client = Client::start(&namespace, &["--expose", "8080"])?;
    ready(true)?;
    // The probe sees what there is: without the client it fails.
    drop(client);
    ready(false)?;
    Ok(())
}

#[test]
fn w1_a_port_of_the_codes_own_makes_the_name_fail() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let client = Client::start(&namespace, &["--expose", "7001:8080"])?;
    let app = App::httpd(&client, "7002", "local code")?;
    eventually("the code", || app.get("http://127.0.0.1:7002"))?;
    for (name, remedy) in [
        ("thing1", "expose another LOCAL port"),
        ("thing2", "listen on 127.0.0.1 alone"),
    ] {
        let full_name = format!("{name}.{}.svc.cluster.local", namespace.name);
        let status = "NOERROR|SERVFAIL|NXDOMAIN";
        let query = format!("dig {full_name} A | grep -oE '{status}'");
        assert_eq!(Caller::new(&namespace).sh(&query)?, "NOERROR");
        assert_eq!(app.sh(&query)?, "SERVFAIL", "{name}");
        let log = client.logs()?;
        let line = log
            .lines()
            .find(|line| line.contains(&full_name) && line.contains("SERVFAIL"));
        assert!(
            line.is_some_and(|line| line.contains(remedy)),
            "{name}: {log}"
        );
    }
    Ok(())
}

/// The pod's side of a connection is asked for a sign of life as the tunnel likes, whatever the program says.
#[test]
fn w1_keepalive_is_the_tunnels_own() -> Outcome {
    let namespace = Namespace::new()?;
    let beside = format!("{{name: beside, image: '{IMAGE}', command: [sleep, infinity]}}");
    namespace.apply(&target_with(&[], &[&beside])?)?;
    namespace.rolled_out()?;
    let client = Client::transparent(&namespace, &[])?;
    let connect = "import socket, time
s = socket.create_connection(('kubernetes.default', 443))
s.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5)
time.sleep(1e6)";
    let _app = programs::start(&client, connect, &[])?;
    // Of established connections to port 443 the timer, of which 02 is keepalive, and the hundredths of a second until then (proc(5)).
    let timers = "for line in open('/proc/net/tcp').readlines()[1:]:
    fields = line.split()
    if fields[2].endswith(':01BB') and fields[3] == '01':
        kind, when = fields[5].split(':')
        print(kind, 3000 < int(when, 16) <= 6000)";
    let pod = Caller::of(&namespace, "deploy/yourcode-deployment", "beside");
    eventually("the connection", || {
        let said = programs::run(&pod, timers, &[])?;
        ensure!(said == "02 True", "{said}");
        Ok(())
    })?;
    Ok(())
}
