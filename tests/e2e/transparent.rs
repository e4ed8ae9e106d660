//! Transparent mode: with NET_ADMIN, whatever the code connects to is what the pod would reach.

use anyhow::ensure;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use tests::app::{self, App};
use tests::caller::Caller;
use tests::client::{ADMIN, Client};
use tests::command::{Background, eventually, run};
use tests::manifests::{BUSYBOX, busybox, own_address, service_for, target_with};
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::programs::{self, PROGRAMS};
use tests::shell::{Shell, assert_reset};

const URL: &str = "postgresql://yourcode:yourcode@somewhere.someplace.cloud.example.com/yourcode";

/// A namespace with everything, a client with NET_ADMIN for it, and a place for commands in its network.
fn connected() -> Outcome<(Namespace, Client, App)> {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let client = Client::transparent(&namespace, &[])?;
    let app = App::idle(&client)?;
    Ok((namespace, client, app))
}

/// Pods behind a Service without an address of its own, each with a name.
const STATEFUL: &str = "
apiVersion: v1
kind: Service
metadata: {name: stateful}
spec:
  clusterIP: None
  selector: {name: stateful}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: stateful}
spec:
  serviceName: stateful
  replicas: 2
  podManagementPolicy: Parallel
  selector: {matchLabels: {name: stateful}}
  template:
    metadata: {labels: {name: stateful}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: stateful
        image: telepresence-test/busybox:1
        command: [sh, -c, 'mkdir /www; hostname >/www/index.html; exec httpd -f -p 9000 -h /www']
---
apiVersion: v1
kind: Service
metadata: {name: external}
spec: {type: ExternalName, externalName: somewhere.someplace.cloud.example.com}
";

#[test]
fn o5_pods_by_name_and_address_and_services_without_one() -> Outcome {
    let (namespace, _client, app) = connected()?;
    namespace.apply(STATEFUL)?;
    namespace.kubectl("rollout status statefulset/stateful --timeout=90s")?;
    for pod in ["stateful-0", "stateful-1"] {
        let name = format!("http://{pod}.stateful:9000");
        eventually(&name, || {
            let page = app.get(&name)?;
            ensure!(page == pod, "{page}");
            Ok(())
        })?;
        let address = namespace.kubectl(&format!("get pod {pod} -o jsonpath={{.status.podIP}}"))?;
        assert_eq!(app.get(&format!("http://{address}:9000"))?, pod);
    }
    let page = app.get("http://stateful:9000")?;
    assert!(page.starts_with("stateful-"), "{page}");
    let query = "psql -At -c 'SELECT count(*) FROM greetings' postgresql://yourcode:yourcode@external/yourcode";
    assert_eq!(app.sh(query)?, "2");
    Ok(())
}

/// The group that the client runs under (`local-client/src/intercept/transparent/table.rs`) is nobody else's affair.
const OWN_GROUP: u32 = 29_797;

#[test]
fn o2_o5_addresses_of_the_environment_are_left_alone_and_work() -> Outcome {
    let (namespace, client, app) = connected()?;
    assert_ne!(fs::metadata(client.env_file())?.gid(), OWN_GROUP);
    let address = namespace.kubectl("get service thing1 -o jsonpath={.spec.clusterIP}")?;
    assert_eq!(app.sh("echo $THING1_SERVICE_HOST")?, address);
    let page = "curl -sS --fail --max-time 10 http://$THING1_SERVICE_HOST:$THING1_SERVICE_PORT";
    assert_eq!(app.sh(page)?, "thing1");
    // What a name stands for is what the pod sees, and so is the address of who answers.
    let name = format!("thing1.{}", namespace.name);
    let hosts = format!("getent hosts {name}");
    assert_eq!(app.sh(&hosts)?, Caller::new(&namespace).sh(&hosts)?);
    let peer = format!(
        "python3 -c 'import socket; print(socket.create_connection((\"{name}\", 7001)).getpeername())'"
    );
    assert_eq!(app.sh(&peer)?, format!("('{address}', 7001)"));
    Ok(())
}

#[test]
fn o6_the_clouds_database_without_being_named() -> Outcome {
    let (_namespace, _client, app) = connected()?;
    let answer = app.sh(&format!(
        "psql -At -c 'SELECT count(*) FROM greetings' {URL}"
    ))?;
    assert_eq!(answer, "2");
    assert_eq!(
        app.sh("getent hosts somewhere.someplace.cloud.example.com | cut -d' ' -f1")?,
        "198.18.0.10"
    );
    Ok(())
}

#[test]
fn o16_the_clusters_api_server() -> Outcome {
    let (namespace, _client, app) = connected()?;
    let version = "curl -sSk --fail --max-time 10 https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/version";
    let there = Caller::new(&namespace).sh(version)?;
    assert!(there.contains("gitVersion"), "{there}");
    assert_eq!(app.sh(version)?, there);
    Ok(())
}

/// Where clouds tell a machine about itself; here, what is beside the client in its pod does.
const METADATA: &str = "169.254.169.254";

#[test]
fn o16_the_clouds_metadata_server() -> Outcome {
    let namespace = Namespace::new()?;
    let serve = format!(
        "mkdir /www; echo metadata >/www/index.html; exec httpd -f -p {METADATA}:80 -h /www"
    );
    let server = format!("{{name: metadata, image: '{BUSYBOX}', command: [sh, -c, '{serve}']}}");
    let address = own_address(&format!("{METADATA}/32"));
    namespace.apply(&target_with(&[&address], &[&server])?)?;
    namespace.rolled_out()?;
    let client = Client::transparent(&namespace, &[])?;
    let app = App::idle(&client)?;
    let url = format!("http://{METADATA}");
    eventually("the server", || {
        let page = app.get(&url)?;
        ensure!(page == "metadata", "{page}");
        Ok(())
    })?;
    Ok(())
}

#[test]
fn o9_what_cannot_be_reached_is_a_reset() -> Outcome {
    let (namespace, client, app) = connected()?;
    namespace.apply(&service_for("refusing", 80, "thing1", 81))?;
    let address = namespace.kubectl("get service refusing -o jsonpath={.spec.clusterIP}")?;
    eventually("the refusal in the cluster", || {
        let end = Caller::new(&namespace).connection(&address, 80)?;
        ensure!(end == "ConnectionRefusedError", "{end}");
        Ok(())
    })?;
    assert_reset(&app.connection(&address, 80)?);
    client.logged(1, &[&address, "connection refused"])?;
    Ok(())
}

/// A server that speaks first, both directions ended on their own, and any program: without privileges, and linked statically.
#[test]
fn o7_o8_as_any_user_from_any_program() -> Outcome {
    let (namespace, client, _app) = connected()?;
    let greeter = busybox(
        "greeter",
        25,
        "exec nc -ll -p 25 -e sh -c \"echo 220 greetings; cat\"",
    );
    namespace.apply(&(greeter + &service_for("greeter", 25, "greeter", 25)))?;
    namespace.ready("pod/greeter")?;
    let greeted = "timeout 5 bash -c 'exec 3<>/dev/tcp/greeter/25; head -n 1 <&3'";
    eventually("the greeter", || Caller::new(&namespace).sh(greeted))?;
    let script = "echo hello | timeout 20 nc greeter 25";
    for options in app::USERS {
        let mut docker = app::joined(&client);
        docker.args(options);
        docker.args([BUSYBOX, "sh", "-c", script]);
        assert_eq!(run(&mut docker)?, "220 greetings\nhello\n", "{options:?}");
    }
    Ok(())
}

/// All rules, addresses and routes of a network, but for those of the link alone, which come some time after it.
fn routing(network: &str) -> anyhow::Result<Vec<String>> {
    let script =
        "ip rule; ip -6 rule; ip -o address; ip route show table all; ip -6 route show table all";
    let mut docker = Command::new("docker");
    let text = run(docker.args([
        "run",
        "--rm",
        "--network",
        network,
        BUSYBOX,
        "sh",
        "-c",
        script,
    ]))?;
    let lines = text
        .lines()
        .filter(|line| !line.contains("fe80:") && !line.contains("ff00:"));
    Ok(lines.map(|line| line.trim().to_owned()).collect())
}

/// A network that outlives the client has its connections to itself again, however the client ends.
#[test]
fn l8_the_end_leaves_nothing_in_the_network() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let address = namespace.kubectl("get service thing1 -o jsonpath={.spec.clusterIP}")?;
    let nameserver =
        namespace.kubectl("get service -n kube-system kube-dns -o jsonpath={.spec.clusterIP}")?;
    let query = format!(
        "dig +short +notcp +time=3 +tries=1 @{nameserver} kubernetes.default.svc.cluster.local"
    );
    let with_ipv6 = ["--sysctl", "net.ipv6.conf.all.disable_ipv6=0"];
    let sleep = ["sleep", "infinity"];
    let owner = App::run(&namespace.cluster, &with_ipv6, app::IMAGE, &sleep)?;
    let network = format!("container:{}", owner.name);
    let files = || owner.sh("cat /etc/resolv.conf /etc/hosts");
    let before = (routing(&network)?, files()?);
    for end in ["stop", "kill", "stop"] {
        // The others are in a network that another has used, the last one in one that was left in a hurry.
        let client = Client::of(&namespace)
            .docker(&[&ADMIN[..], &["--network", &network]].concat())
            .start(&[])?;
        assert_eq!(owner.get(&format!("http://{address}:7001"))?, "thing1");
        let meanwhile = routing(&network)?;
        assert!(meanwhile.len() >= before.0.len() + 7, "{meanwhile:?}");
        assert!(files()?.starts_with("nameserver 127.0.0.1\n"));
        let answer = owner.sh(&query)?;
        assert!(answer.parse::<Ipv4Addr>().is_ok(), "{answer}");
        client.docker(&[end])?;
        client.ended()?;
        if end == "stop" {
            assert_eq!((routing(&network)?, files()?), before);
        }
        // It leaves for the laptop's network, where there is no such address.
        let lost = owner.connection(&address, 7001)?;
        assert!(!lost.contains("connected"), "{end}: {lost}");
        assert!(
            !lost.contains("Refused"),
            "{end}: it is still led to the client: {lost}"
        );
        let lost = owner.try_sh(&query)?;
        assert!(!lost.status.success(), "{end}: {lost:?}");
    }
    Ok(())
}

/// Rules of others in the same network stay, and do their part.
#[test]
fn l8_rules_of_others() -> Outcome {
    const RULES: &str = "table inet own {
  chain refused { type filter hook output priority 0; tcp dport 7777 reject with tcp reset; }
  chain redirected { type nat hook output priority -100; ip daddr 127.0.0.1 tcp dport 8888 redirect to :8000; }
}";
    const CONNECT: &str = "import socket
try:
    socket.create_connection(('127.0.0.1', 7777), 10)
except OSError as error:
    print(type(error).__name__)";
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let serve = format!(
        "mkdir /www && echo own >/www/index.html && echo '{RULES}' | nft -f - && exec python3 -m http.server --directory /www 8000"
    );
    let owner = App::run(&namespace.cluster, &ADMIN, PROGRAMS, &["sh", "-c", &serve])?;
    let rules = || owner.sh("nft list ruleset");
    let fetch = |url: &str| {
        let script =
            format!("import requests; print(requests.get('{url}', timeout=10).text, end='')");
        programs::run(&owner, &script, &[])
    };
    let works = || -> Outcome {
        eventually("the redirected port", || {
            let page = fetch("http://127.0.0.1:8888")?;
            ensure!(page == "own", "{page}");
            Ok(())
        })?;
        assert_eq!(
            programs::run(&owner, CONNECT, &[])?,
            "ConnectionRefusedError"
        );
        Ok(())
    };
    works()?;
    let before = rules()?;
    let network = format!("container:{}", owner.name);
    let client = Client::of(&namespace)
        .docker(&[&ADMIN[..], &["--network", &network]].concat())
        .start(&[])?;
    assert_eq!(fetch("http://thing1:7001")?, "thing1");
    works()?;
    assert!(rules()?.contains(before.trim_end()));
    client.docker(&["stop"])?;
    client.ended()?;
    assert_eq!(rules()?, before);
    Ok(())
}

/// Open connections are told of the end, on whichever network.
#[test]
fn l8_the_end_resets_open_connections() -> Outcome {
    let (namespace, client, app) = connected()?;
    let silent = busybox("silent", 9000, "exec nc -ll -p 9000 -e sleep 600");
    namespace.apply(&(silent + &service_for("silent", 9000, "silent", 9000)))?;
    namespace.ready("pod/silent")?;
    let script = "import socket
open('/tmp/begun', 'w')
try:
    s = socket.create_connection(('silent', 9000), 30)
    open('/tmp/connected', 'w')
    print(s.recv(1) or 'an orderly end')
except OSError as error:
    print(type(error).__name__)";
    app.sh(&format!("cat >/tmp/wait.py <<'END'\n{script}\nEND"))?;
    let mut waiting =
        Background::start(
            app.exec()
                .args(["timeout", "60", "python3", "/tmp/wait.py"]),
        )?;
    eventually("the connection", || app.sh("test -e /tmp/connected"))?;
    client.docker(&["stop"])?;
    let end = waiting.wait_for("the connection's end", |line| Some(line.to_owned()))?;
    assert_eq!(end, "ConnectionResetError");
    Ok(())
}

/// What is missing is named, and nothing is done by halves.
#[test]
fn s2_what_transparent_mode_needs_is_named() -> Outcome {
    let namespace = Namespace::new()?.with_target()?;
    let group = ["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"];
    let raw = [&ADMIN[..], &["--cap-drop", "NET_RAW"]].concat();
    let machine = [&ADMIN[..], &["--network", "host"]].concat();
    for (docker, remedy) in [
        (&[][..], "--cap-add NET_ADMIN"),
        (&group, "--cap-add SETGID"),
        (&raw, "--cap-add NET_RAW"),
        (&machine, "without --network host"),
    ] {
        let client = Client::of(&namespace)
            .docker(docker)
            .launch(&["--intercept", "transparent"])?;
        assert_eq!(client.ended()?, 8);
        let log = client.logs()?;
        assert!(log.contains(remedy), "{log}");
        assert!(log.contains("--intercept"), "the other way out: {log}");
    }
    Ok(())
}

/// What is handed over comes by the loopback interface, which such a socket does not hear.
#[test]
fn w1_a_socket_bound_to_a_device() -> Outcome {
    let (_namespace, client, app) = connected()?;
    let address = client.address()?;
    let fetch = |interface: &str| {
        app.try_sh(&format!(
            "curl -sS --fail --max-time 5 --interface {interface} http://thing1:7001"
        ))
    };
    assert_eq!(fetch("eth0")?.status.code(), Some(28), "it times out");
    assert_eq!(fetch(address.trim())?.stdout, b"thing1\n");
    Ok(())
}

/// Without IPv6 here, IPv4 is as with it.
#[test]
fn o5_o14_without_ipv6() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let off = ["--sysctl", "net.ipv6.conf.all.disable_ipv6=1"];
    let client = Client::of(&namespace)
        .docker(&[&ADMIN[..], &off].concat())
        .start(&[])?;
    let app = App::idle(&client)?;
    assert_eq!(app.get("http://thing1:7001")?, "thing1");
    let nameserver =
        namespace.kubectl("get service -n kube-system kube-dns -o jsonpath={.spec.clusterIP}")?;
    let query = format!("dig +short +notcp @{nameserver} kubernetes.default.svc.cluster.local");
    assert!(app.sh(&query)?.parse::<Ipv4Addr>().is_ok());
    Ok(())
}

/// Has the kernel know no protocol 12 of netlink (NETLINK_NETFILTER of linux/netlink.h; AF_NETLINK is 16, EPROTONOSUPPORT 93), as if it were built without nftables.
const WITHOUT_NFTABLES: &str = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["socket"], "action": "SCMP_ACT_ERRNO",
"errnoRet": 93, "args": [{"index": 0, "value": 16, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": 12, "op": "SCMP_CMP_EQ"}]}]}"#;

/// It is said what is missing, and how to do without; by itself the client falls back to nothing.
#[test]
fn s2_a_kernel_without_nftables() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let profile = namespace.home().join("seccomp.json");
    fs::write(&profile, WITHOUT_NFTABLES)?;
    let profile = format!("seccomp={}", profile.display());
    let docker = [&ADMIN[..], &["--security-opt", &profile]].concat();
    let client = Client::of(&namespace).docker(&docker).launch(&[])?;
    assert_eq!(client.ended()?, 8);
    let log = client.logs()?;
    assert!(
        log.contains("nftables") && log.contains("--intercept loopback"),
        "{log}"
    );
    let client = Client::of(&namespace)
        .docker(&docker)
        .start(&["--intercept", "loopback"])?;
    assert_eq!(App::idle(&client)?.get("http://thing1:7001")?, "thing1");
    Ok(())
}
