//! A cluster of both families: what has addresses of IPv6 is reached by them, and so is the code.

use anyhow::ensure;
use tests::app::App;
use tests::caller::Caller;
use tests::client::{ADMIN, Client};
use tests::command::eventually;
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::programs::{self, DATAGRAMS};
use tests::shell::{Shell, assert_reset};

/// `thing1` by Services of both families, of IPv6 alone, and without an address; the code by one of IPv6.
const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: dual}
spec:
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv4, IPv6]
  selector: {name: thing1}
  ports: [{port: 7001, targetPort: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: six}
spec:
  ipFamilies: [IPv6]
  selector: {name: thing1}
  ports: [{port: 7001, targetPort: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec:
  clusterIP: None
  ipFamilyPolicy: RequireDualStack
  selector: {name: thing1}
  ports: [{port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: code}
spec:
  ipFamilies: [IPv6]
  selector: {name: yourcode}
  ports:
  - {name: web, port: 8080}
  - {name: datagrams, protocol: UDP, port: 9000}
";

/// Docker turns IPv6 off in networks without it.
const ON: [&str; 2] = ["--sysctl", "net.ipv6.conf.all.disable_ipv6=0"];

fn namespace() -> Outcome<Namespace> {
    let namespace = Namespace::new()?.with_things()?;
    namespace.apply(SERVICES)?;
    Ok(namespace.with_target()?)
}

/// The address of IPv6 that a pod has.
fn address(namespace: &Namespace, pod: &str) -> anyhow::Result<String> {
    let all = namespace.kubectl(&format!(
        "get pod {pod} -o jsonpath={{.status.podIPs[*].ip}}"
    ))?;
    let mut all = all.split(' ').map(str::to_owned);
    all.find(|address| address.contains(':'))
        .ok_or_else(|| anyhow::anyhow!("no address of IPv6"))
}

/// By name and by address, as from a pod; from a network of Docker's that has IPv6, and from one that has none.
#[test]
fn o15_d1_w1_services_and_pods_of_ipv6() -> Outcome {
    let namespace = namespace()?;
    let service = namespace.kubectl("get service six -o jsonpath={.spec.clusterIP}")?;
    let pod = address(&namespace, "thing1")?;
    let caller = Caller::new(&namespace);
    let fetch = |where_to: &str| format!("curl -sS --fail --max-time 10 {where_to}");
    let pages = [
        "-4 http://dual:7001".to_owned(),
        "-6 http://dual:7001".to_owned(),
        "http://six:7001".to_owned(),
        "-6 http://headless".to_owned(),
        format!("http://[{service}]:7001"),
        format!("http://[{pod}]"),
    ];
    for page in &pages {
        eventually(page, || {
            let page = caller.sh(&fetch(page))?;
            ensure!(page == "thing1", "{page}");
            Ok(())
        })?;
    }
    let answers = ["dual", "six", "headless", "thing1"].map(|name| {
        let dig = |kind| format!("dig +short +search {kind} {name}; ");
        dig("AAAA") + &dig("A")
    });
    let answers = answers.concat();
    let there = caller.sh(&answers)?;
    assert!(there.contains(&service) && there.contains(&pod), "{there}");
    let preferred = "getent ahosts dual | head -n 1";
    for network in [&["--network", "kind"][..], &ON] {
        let client = Client::of(&namespace)
            .docker(&[&ADMIN[..], network].concat())
            .start(&[])?;
        let app = App::idle(&client)?;
        for page in &pages {
            assert_eq!(app.sh(&fetch(page))?, "thing1", "{page} {network:?}");
        }
        assert_eq!(app.sh(&answers)?, there);
        // Which of them a program prefers goes by its own address (RFC 6724), which is of another kind in that network.
        let same = app.sh(preferred)? == caller.sh(preferred)?;
        assert_eq!(same, network == ON, "{network:?}");
        // A port that the Service has not.
        assert_reset(&app.connection("six", 7002)?);
    }
    Ok(())
}

/// Where Docker has turned IPv6 off, there is none, not even here; what has both families is reached by the other one.
#[test]
fn o15_w1_both_families_without_ipv6() -> Outcome {
    let namespace = namespace()?;
    let caller = Caller::new(&namespace);
    eventually("the Service", || caller.get("http://dual:7001"))?;
    assert_eq!(caller.connection("::1", 9)?, "ConnectionRefusedError");
    for docker in [&[][..], &ADMIN] {
        let client = Client::of(&namespace).docker(docker).start(&[])?;
        let app = App::idle(&client)?;
        assert_eq!(app.get("http://dual:7001")?, "thing1", "{docker:?}");
        assert_eq!(app.connection("::1", 9)?, "OSError", "{docker:?}");
        if docker == ADMIN {
            let own_families = "python3 -c 'import socket; socket.getaddrinfo(\"six\", 0, flags=socket.AI_ADDRCONFIG)'";
            caller.sh(own_families)?;
            assert!(!app.try_sh(own_families)?.status.success());
        }
    }
    Ok(())
}

/// Pods that call by IPv6 reach the code, which listens where it likes.
#[test]
fn i1_i3_callers_of_ipv6() -> Outcome {
    let namespace = namespace()?;
    let client = Client::of(&namespace)
        .docker(&ON)
        .start(&["--expose", "8080", "--expose", "9000/udp"])?;
    let target = namespace.target_pod()?["metadata"]["name"].to_string();
    let urls = [
        "http://code:8080".to_owned(),
        format!(
            "http://[{}]:8080",
            address(&namespace, target.trim_matches('"'))?
        ),
    ];
    for listens in ["127.0.0.1", "::1"] {
        let page = format!("code on {listens}");
        let _app = App::httpd(&client, &format!("{listens}:8080"), &page)?;
        for url in &urls {
            namespace.answers(url, &page)?;
        }
    }
    let _app = programs::start(&client, DATAGRAMS, &["serve", "9000"])?;
    let service = namespace.kubectl("get service code -o jsonpath={.spec.clusterIP}")?;
    eventually("the code", || {
        let words = ["probe", &service, "9000", "many_sockets"];
        let said = programs::run(&Caller::new(&namespace), DATAGRAMS, &words)?;
        ensure!(said.contains("many_sockets: 200 of 200 sockets"), "{said}");
        Ok(())
    })?;
    Ok(())
}

/// The pod tries both families, and takes the one that answers.
#[test]
fn o17_a_name_of_which_one_family_is_dead() -> Outcome {
    let namespace = namespace()?;
    let dead = ["198.18.127.254", "2001:2:0:1ff::1"].map(str::to_owned);
    let alive = [
        namespace.kubectl("get pod thing1 -o jsonpath={.status.podIP}")?,
        address(&namespace, "thing1")?,
    ];
    let client = Client::start(&namespace, &[])?;
    let app = App::idle(&client)?;
    for (name, [v4, v6]) in [
        ("half", [&alive[0], &dead[1]]),
        ("other", [&dead[0], &alive[1]]),
    ] {
        namespace.apply(&endpoints(name, v4, v6))?;
        eventually("both families", || {
            let dig = format!("dig +short +search AAAA {name}; dig +short +search A {name}");
            let found = Caller::new(&namespace).sh(&dig)?;
            ensure!(found == format!("{v6}\n{v4}"), "{found}");
            Ok(())
        })?;
        let url = format!("http://{name}");
        let by_socks = "curl -sS --fail --max-time 20 --socks5-hostname 127.0.0.1:1080";
        assert_eq!(app.sh(&format!("{by_socks} {url}"))?, "thing1", "{name}");
        assert_eq!(app.get(&url)?, "thing1", "{name}");
    }
    Ok(())
}

/// A Service without an address, and what its name stands for.
fn endpoints(name: &str, v4: &str, v6: &str) -> String {
    let slice = |family: &str, address: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-{}, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: {family}
ports: [{{port: 80}}]
endpoints: [{{addresses: ['{address}']}}]
---
",
            family.to_ascii_lowercase()
        )
    };
    let service = format!(
        "apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{clusterIP: None, ipFamilyPolicy: RequireDualStack, ports: [{{port: 80}}]}}
"
    );
    slice("IPv4", v4) + &slice("IPv6", v6) + &service
}
