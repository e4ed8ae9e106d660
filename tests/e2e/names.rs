//! DNS is the pod's.

use anyhow::{Context, Result, ensure};
use tests::app::App;
use tests::caller::Caller;
use tests::client::Client;
use tests::command::eventually;
use tests::manifests::{HARD_TARGET, service_for};
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::shell::Shell;

/// The status and the sorted records of an answer.
fn dig(place: &impl Shell, query: &str) -> Result<(String, Vec<String>)> {
    let text = place.sh(&format!(
        "dig +nocmd +noall +comments +answer +nottlid +time=5 +tries=2 {query}"
    ))?;
    let (_, rest) = text
        .split_once("status: ")
        .with_context(|| format!("dig {query}: {text}"))?;
    let status = rest.split(',').next().unwrap_or_default().to_owned();
    let records = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with(';'));
    let mut records: Vec<_> = records
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    records.sort();
    Ok((status, records))
}

const HEADLESS: &str = "apiVersion: v1
kind: Service
metadata: {name: headless}
spec:
  clusterIP: None
  selector: {name: thing1}
  ports: [{name: http, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere}
spec: {type: ExternalName, externalName: somewhere.someplace.cloud.example.com}
";

#[test]
fn d1_answers_are_those_of_the_pod() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    namespace.apply(HEADLESS)?;
    let client = Client::start(&namespace, &[])?;
    let (app, caller) = (App::idle(&client)?, Caller::new(&namespace));
    let service = namespace.get("service thing1")?;
    let address = service
        .pointer("/spec/clusterIP")
        .and_then(|ip| ip.as_str())
        .ok_or("no address")?;
    for name in ["headless", "elsewhere"] {
        let query = format!("{name}.{}.svc.cluster.local A", namespace.name);
        eventually(&format!("the Service {name}"), || {
            ensure!(!dig(&caller, &query)?.1.is_empty());
            Ok(())
        })?;
    }

    let same = [
        ("AAAA", "thing1.NS.svc.cluster.local AAAA", "NOERROR", 0),
        (
            "SRV",
            "_http._tcp.thing1.NS.svc.cluster.local SRV",
            "NOERROR",
            1,
        ),
        (
            "SRV of all ports",
            "thing1.NS.svc.cluster.local SRV",
            "NOERROR",
            1,
        ),
        (
            "SRV, headless",
            "_http._tcp.headless.NS.svc.cluster.local SRV",
            "NOERROR",
            1,
        ),
        (
            "CNAME",
            "elsewhere.NS.svc.cluster.local CNAME",
            "NOERROR",
            1,
        ),
        ("PTR", "-x ADDRESS", "NOERROR", 1),
        ("PTR of nobody", "-x 198.19.255.254", "NXDOMAIN", 0),
        ("TXT", "dns-version.cluster.local TXT", "NOERROR", 1),
        ("NODATA", "thing1.NS.svc.cluster.local TXT", "NOERROR", 0),
        ("NODATA", "thing1.NS.svc.cluster.local MX", "NOERROR", 0),
        ("NXDOMAIN", "nothing.NS.svc.cluster.local A", "NXDOMAIN", 0),
        (
            "NXDOMAIN",
            "nothing.NS.svc.cluster.local SRV",
            "NXDOMAIN",
            0,
        ),
        ("NXDOMAIN", "nothing.example.com A", "NXDOMAIN", 0),
        (
            "A of a host that is not proxied",
            "somewhere.someplace.cloud.example.com A",
            "NOERROR",
            1,
        ),
        ("search", "+search thing1 SRV", "NOERROR", 1),
    ];
    for (what, query, status, records) in same {
        let query = query
            .replace("NS", &namespace.name)
            .replace("ADDRESS", address);
        for transport in ["", "+tcp "] {
            let query = format!("{transport}{query}");
            let (here, there) = (dig(&app, &query)?, dig(&caller, &query)?);
            assert_eq!(here, there, "{what}: dig {query}");
            assert_eq!(
                (here.0.as_str(), here.1.len()),
                (status, records),
                "{what}: dig {query}"
            );
        }
    }
    // A claimed name has an address of its own here, by design; all the rest of the answer is the pod's.
    for name in ["thing1", "headless", "elsewhere"] {
        let query = format!("{name}.{}.svc.cluster.local A", namespace.name);
        let (here, there) = (dig(&app, &query)?, dig(&caller, &query)?);
        assert_eq!(here.0, there.0, "{query}");
        let owner = |records: &[String]| Some(records.first()?.split(' ').next()?.to_owned());
        assert!(
            owner(&here.1).is_some() && owner(&here.1) == owner(&there.1),
            "{query}: {here:?}, {there:?}"
        );
        assert!(here.1[0].contains(" A 127.77."), "{query}: {here:?}");
    }
    assert_eq!(app.get("http://headless")?, "thing1");
    Ok(())
}

#[test]
fn d2_search_list_options_and_host_aliases_are_the_pods() -> Outcome {
    let namespace = Namespace::new()?.with_things()?;
    namespace.apply(HARD_TARGET)?;
    let client = Client::start(&namespace, &[])?;
    let (app, pod) = (
        App::idle(&client)?,
        Caller::of(&namespace, "deploy/yourcode-deployment", "decoy"),
    );
    for script in [
        "grep ^search /etc/resolv.conf",
        "grep ^options /etc/resolv.conf",
    ] {
        let (here, there) = (app.sh(script)?, pod.sh(script)?);
        let words = |line: &str| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(words(&here), words(&there), "{script}");
    }
    assert!(
        app.sh("cat /etc/resolv.conf")?
            .contains("extra.example.com")
    );
    // ndots:3 sends a name of two dots through the search list first, one of three dots straight.
    assert_eq!(
        app.get(&format!("http://thing1.{}.svc:7001", namespace.name))?,
        "thing1"
    );
    assert_eq!(app.get("http://thing2:7002")?, "thing2");
    let alias = app.sh("getent hosts alias.of.the.pod")?;
    assert!(alias.starts_with("198.18.0.77 "), "{alias}");
    // What was in the container's own file stays.
    assert!(app.sh("getent hosts localhost").is_ok());
    Ok(())
}

#[test]
fn d7_two_names_of_one_address() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let headless = |name: &str, port| {
        service_for(name, port, "thing1", 80).replace("spec:\n", "spec:\n  clusterIP: None\n")
    };
    namespace.apply(&(headless("left", 80) + &headless("right", 80)))?;
    for name in ["left", "right"] {
        namespace.answers(&format!("http://{name}"), "thing1")?;
    }
    let client = Client::start(&namespace, &[])?;
    let app = App::idle(&client)?;
    for name in ["left", "right", "left"] {
        assert_eq!(app.get(&format!("http://{name}"))?, "thing1", "{name}");
    }
    Ok(())
}

#[test]
fn d7_a_name_whose_address_changes() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    namespace.apply(&service_for("moving", 80, "thing1", 80))?;
    namespace.answers("http://moving", "thing1")?;
    let client = Client::start(&namespace, &[])?;
    let app = App::idle(&client)?;
    assert_eq!(app.get("http://moving")?, "thing1");
    let address = || -> Result<String> {
        let line = Caller::new(&namespace).sh("getent hosts moving")?;
        Ok(line.split(' ').next().unwrap_or_default().to_owned())
    };
    let there = address()?;
    let here = app.sh("getent hosts moving")?;

    namespace.kubectl("delete service moving")?;
    // So that it cannot get the same address again.
    namespace.kubectl(&format!(
        "create service clusterip holder --tcp=80 --clusterip={there}"
    ))?;
    namespace.apply(&service_for("moving", 80, "thing2", 80))?;
    namespace.answers("http://moving", "thing2")?;
    assert_ne!(address()?, there);
    eventually("the new address", || {
        let page = app.get("http://moving")?;
        ensure!(page == "thing2", "{page}");
        Ok(())
    })?;
    // A program that remembers the address is not disturbed.
    assert_eq!(app.sh("getent hosts moving")?, here);
    Ok(())
}
