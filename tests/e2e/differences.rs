//! Where a program can tell that it is not in the pod: what `docs/reference.md` lists ("What your program sees") and no other test shows.
//! Each time, what the pod itself sees is looked at, too.

use anyhow::{Context, ensure};
use tests::app::App;
use tests::caller::Caller;
use tests::client::Client;
use tests::command::eventually;
use tests::manifests::{self, service_for};
use tests::namespace::Namespace;
use tests::outcome::Outcome;
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

#[test]
fn w1_a_connection_stands_before_the_far_side_has_answered() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
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
