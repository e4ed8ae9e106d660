//! The code reaches what the pod reaches.

use anyhow::{Result, ensure};
use std::fmt::Write;
use tests::app::App;
use tests::caller::Caller;
use tests::client::Client;
use tests::command::eventually;
use tests::manifests::{busybox, service_for};
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::shell::Shell;

const DATABASE: &str = "somewhere.someplace.cloud.example.com";
const PROXY: [&str; 2] = ["--proxy", "somewhere.someplace.cloud.example.com:5432"];
const URL: &str = "postgresql://yourcode:yourcode@somewhere.someplace.cloud.example.com/yourcode";

/// A namespace with everything, a client for it, and a place for commands in its network.
fn connected(options: &[&str]) -> Outcome<(Namespace, Client, App)> {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let client = Client::start(&namespace, options)?;
    let app = App::idle(&client)?;
    Ok((namespace, client, app))
}

#[test]
fn o1_a_service_by_each_of_its_names() -> Outcome {
    let (namespace, _client, app) = connected(&[])?;
    let caller = Caller::new(&namespace);
    let names = [
        "thing1",
        "thing1.NS",
        "thing1.NS.svc",
        "thing1.NS.svc.cluster.local",
    ];
    let mut reached = 0;
    for name in names.map(|name| name.replace("NS", &namespace.name)) {
        for dot in ["", "."] {
            let url = format!("http://{name}{dot}:7001");
            // A trailing dot keeps the search list out: what then works in the pod works here, and nothing else.
            let (here, there) = (app.get(&url).ok(), caller.get(&url).ok());
            assert_eq!(here, there, "{url}");
            assert!(here.is_some() || dot == ".", "{url} is not reached");
            reached += usize::from(here.as_deref() == Some("thing1"));
        }
    }
    assert_eq!(reached, names.len() + 1);
    assert_eq!(app.get("http://thing2:7002")?, "thing2");
    Ok(())
}

#[test]
fn o2_a_service_by_its_environment_variables() -> Outcome {
    let (namespace, _client, app) = connected(&[])?;
    for url in [
        "http://$THING1_SERVICE_HOST:$THING1_SERVICE_PORT",
        "http://$THING1_SERVICE_HOST:$THING1_SERVICE_PORT_HTTP",
        "http://${THING1_PORT#tcp://}",
        "http://${THING1_PORT_7001_TCP#tcp://}",
        "http://$THING1_PORT_7001_TCP_ADDR:$THING1_PORT_7001_TCP_PORT",
    ] {
        let page = app.sh(&format!("curl -sS --fail --max-time 10 \"{url}\""))?;
        assert_eq!(page, "thing1", "{url}");
    }
    assert_eq!(
        app.sh("curl -sS --max-time 10 http://$THING2_SERVICE_HOST:$THING2_SERVICE_PORT")?,
        "thing2"
    );
    let name = format!("thing1.{}.svc", namespace.name);
    assert_eq!(
        app.sh("echo $THING1_SERVICE_HOST $THING1_PORT")?,
        format!("{name} tcp://{name}:7001")
    );
    Ok(())
}

#[test]
fn o3_hosts_on_one_port_and_a_service_with_several_ports() -> Outcome {
    const SERVICES: u16 = 30;
    let (namespace, _client, app) = connected(&[])?;
    // One web server for each Service, all Services at port 80; and one Service with two of the servers behind two ports.
    let script = format!(
        "for i in $(seq 1 {SERVICES}); do mkdir -p /www/$i; echo many-$i >/www/$i/index.html; httpd -p $((9000 + i)) -h /www/$i; done; exec tail -f /dev/null"
    );
    let mut manifest = busybox("many", 9000 + SERVICES, &script);
    for i in 1..=SERVICES {
        manifest += &service_for(&format!("many-{i}"), 80, "many", 9000 + i);
    }
    write!(
        manifest,
        "apiVersion: v1\nkind: Service\nmetadata: {{name: several}}\nspec:\n  selector: {{name: many}}\n  ports: [{{name: a, port: 81, targetPort: 9001}}, {{name: b, port: 7005, targetPort: 9002}}]\n"
    )?;
    namespace.apply(&manifest)?;
    namespace.ready("pod/many")?;
    namespace.answers("http://several:7005", "many-2")?;
    for i in 1..=SERVICES {
        namespace.answers(&format!("http://many-{i}"), &format!("many-{i}"))?;
    }
    // All at once, as a program that starts does.
    let pages = app.sh(&format!(
        "for i in $(seq 1 {SERVICES}); do curl -sS --max-time 30 http://many-$i & done; wait"
    ))?;
    let mut pages: Vec<_> = pages.lines().map(str::to_owned).collect();
    let mut expected: Vec<_> = (1..=SERVICES).map(|i| format!("many-{i}")).collect();
    pages.sort();
    expected.sort();
    assert_eq!(pages, expected);
    assert_eq!(app.get("http://several:81")?, "many-1");
    assert_eq!(app.get("http://several:7005")?, "many-2");
    Ok(())
}

/// By the names of two pods, which are no Services'.
#[test]
fn o3_two_proxied_hosts_on_one_port() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let host = |thing: &str| -> Result<String> {
        let address =
            namespace.kubectl(&format!("get pod {thing} -o jsonpath={{.status.podIP}}"))?;
        let (address, name) = (address.replace('.', "-"), &namespace.name);
        Ok(format!("{address}.{name}.pod.cluster.local"))
    };
    let (one, other) = (host("thing1")?, host("thing2")?);
    let [first, second] = [&one, &other].map(|host| format!("{host}:80"));
    let client = Client::start(&namespace, &["--proxy", &first, "--proxy", &second])?;
    let app = App::idle(&client)?;
    for (host, thing) in [(one, "thing1"), (other, "thing2")] {
        let address = app.sh(&format!("getent hosts {host}"))?;
        assert!(address.starts_with("127.77."), "{address}");
        assert_eq!(app.get(&format!("http://{host}"))?, thing);
    }
    Ok(())
}

#[test]
fn o4_a_service_created_changed_and_deleted_after_the_start() -> Outcome {
    let (namespace, _client, app) = connected(&[])?;
    assert!(app.get("http://late:7003").is_err());
    let change = |port, selected: &str| namespace.apply(&service_for("late", port, selected, 80));
    let answers = |port: u16, page: &str| {
        eventually(&format!("{page} at port {port}"), || {
            let got = app.get(&format!("http://late:{port}"))?;
            ensure!(got == page, "got {got}");
            Ok(())
        })
    };
    change(7003, "thing1")?;
    answers(7003, "thing1")?;
    change(7003, "thing2")?;
    answers(7003, "thing2")?;
    change(7004, "thing2")?;
    answers(7004, "thing2")?;
    namespace.kubectl("delete service late")?;
    eventually("the name's end", || {
        ensure!(!app.try_sh("getent hosts late")?.status.success());
        Ok(())
    })?;
    Ok(())
}

#[test]
fn o6_a_query_to_the_clouds_database() -> Outcome {
    let (_namespace, _client, app) = connected(&PROXY)?;
    let answer = app.sh(&format!(
        "psql -At -c 'SELECT text FROM greetings ORDER BY text' {URL}"
    ))?;
    assert_eq!(answer, "good morning from the cloud\nhello from the cloud");
    // By the variable that the pod has it in, as a program would.
    assert_eq!(app.sh("echo $YOUR_DATABASE_HOST")?, DATABASE);
    let address = app.sh(&format!("getent hosts {DATABASE}"))?;
    assert!(address.starts_with("127.77."), "{address}");
    Ok(())
}

/// Three results on one connection, each when it is due.
#[test]
fn o6_a_query_that_is_watched() -> Outcome {
    let (_namespace, _client, app) = connected(&PROXY)?;
    // psql 15 watches without end: grep, which has seen enough, ends it.
    let script = format!(
        r"printf '%s\n' 'SELECT pg_backend_pid() \watch 0.2' | timeout 60 psql -At {URL} | grep -m 3 ."
    );
    let answers = app.sh(&script)?;
    let connections: Vec<_> = answers.lines().collect();
    assert!(
        matches!(connections[..], [a, b, c] if a == b && b == c),
        "{answers}"
    );
    Ok(())
}

/// 100 MB down and up at once, compared with what the database says without us.
#[test]
fn o6_bulk_from_and_to_the_clouds_database() -> Outcome {
    const ROWS: &str =
        "COPY (SELECT i, repeat(md5(i::text), 32) FROM generate_series(1, 100000) i) TO STDOUT";
    let (namespace, _client, app) = connected(&PROXY)?;
    let table = format!("bulk_{}", namespace.name.replace('-', "_"));
    app.sh(&format!(
        "psql -qc 'CREATE TABLE {table} (i int, text text)' {URL}"
    ))?;
    let copied = app.sh(&format!(
        "set -e; mkfifo /tmp/sum; md5sum </tmp/sum >/tmp/md5 & \
         psql -c '{ROWS}' {URL} | tee /tmp/sum | psql -qc 'COPY {table} FROM STDIN' {URL}; wait; cat /tmp/md5"
    ))?;
    let at_the_database = |copy: &str| {
        let script = format!("psql -c '{copy}' yourcode | md5sum");
        tests::command::run(std::process::Command::new("docker").args([
            "exec",
            "telepresence-cloud-db",
            "sh",
            "-c",
            &script,
        ]))
    };
    let down = at_the_database(ROWS)?;
    let up = at_the_database(&format!(
        "COPY (SELECT * FROM {table} ORDER BY i) TO STDOUT"
    ))?;
    app.sh(&format!("psql -qc 'DROP TABLE {table}' {URL}"))?;
    assert_eq!(copied, down.trim_end(), "down");
    assert_eq!(copied, up.trim_end(), "up");
    Ok(())
}

#[test]
fn o7_a_server_speaks_first_on_the_first_connection_of_8_sessions() -> Outcome {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    // Both wait for the server's word before they say anything, as with mail.
    let greeter = busybox(
        "greeter",
        25,
        "exec nc -ll -p 25 -e sh -c \"echo 220 greetings; read quit\"",
    );
    namespace.apply(&(greeter + &service_for("greeter", 25, "greeter", 25)))?;
    namespace.ready("pod/greeter")?;
    let greeted = "exec 3<>/dev/tcp/greeter/25; head -n 1 <&3";
    eventually("the greeter", || {
        Caller::new(&namespace).sh(&format!("timeout 5 bash -c '{greeted}'"))
    })?;
    let script =
        "nc greeter 25 -e sh -c 'read line; echo \"$line\" >/greeting; echo quit'; cat /greeting";
    for session in 1..=8 {
        let answer = Client::of(&namespace).first_connection(script)?;
        assert_eq!(answer, "220 greetings\n", "session {session}");
    }
    Ok(())
}
