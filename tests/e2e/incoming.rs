//! The cluster reaches the code.

use anyhow::{Context, Result, ensure};
use tests::app::App;
use tests::caller::Caller;
use tests::client::Client;
use tests::command::eventually;
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::programs::{WEB, run, start};
use tests::shell::{Shell, assert_reset};

const SERVICE: &str = "http://yourcode-service:8080";

fn namespace() -> Outcome<Namespace> {
    Ok(Namespace::new()?.with_things()?.with_target()?)
}

#[test]
fn i1_a_pod_reaches_the_code_by_service_and_by_pod_address() -> Outcome {
    let namespace = namespace()?;
    let client = Client::start(&namespace, &["--expose", "8080"])?;
    let _app = App::httpd(&client, "8080", "local code")?;
    let urls = [
        SERVICE.to_owned(),
        format!("http://{}:8080", namespace.target_address()?),
    ];
    for url in &urls {
        namespace.answers(url, "local code")?;
    }
    // Once it works, it always does.
    let script = format!(
        "for i in $(seq 20); do curl -sS --fail --max-time 10 {}; done",
        urls.join(" ")
    );
    let pages = Caller::new(&namespace).sh(&script)?;
    assert_eq!(
        pages.lines().filter(|page| *page == "local code").count(),
        20 * urls.len()
    );
    Ok(())
}

#[test]
fn i2_many_ports_that_differ() -> Outcome {
    const PORTS: std::ops::Range<u16> = 0..10;
    let namespace = namespace()?;
    let options: Vec<_> = PORTS
        .flat_map(|i| ["--expose".to_owned(), format!("{}:{}", 3000 + i, 9000 + i)])
        .collect();
    let mut options: Vec<_> = options.iter().map(String::as_str).collect();
    options.extend(["--expose", "3000:8080"]);
    let client = Client::start(&namespace, &options)?;
    let _apps = PORTS
        .map(|i| App::httpd(&client, &(3000 + i).to_string(), &format!("code {i}")))
        .collect::<Result<Vec<_>>>()?;
    let address = namespace.target_address()?;
    for i in PORTS {
        namespace.answers(
            &format!("http://{address}:{}", 9000 + i),
            &format!("code {i}"),
        )?;
    }
    namespace.answers(SERVICE, "code 0")?;
    Ok(())
}

#[test]
fn i3_wherever_the_code_listens() -> Outcome {
    let namespace = namespace()?;
    // Docker turns IPv6 off in networks without it.
    let client = Client::of(&namespace)
        .docker(&["--sysctl", "net.ipv6.conf.all.disable_ipv6=0"])
        .start(&["--expose", "8080"])?;
    let own = client.address()?;
    for (address, caller) in [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1"),
        ("::1", "::1"),
        ("::", "::ffff:127.0.0.1"),
        (&own, &own),
    ] {
        let page = format!("code on {address}");
        let app = App::httpd(&client, &format!("{address}:8080"), &page)?;
        namespace.answers(SERVICE, &page)?;
        // Whoever has called, as the web server's log has it.
        eventually("the log", || {
            let log = app.log()?;
            let mut requests = log.lines().filter(|line| line.contains("GET / "));
            let first = requests.next().context("no request yet")?;
            ensure!(first.starts_with(&format!("{caller} - ")), "{log}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn i3_i5_callers_are_reset_while_the_code_does_not_listen() -> Outcome {
    let namespace = namespace()?;
    let client = Client::start(&namespace, &["--expose", "8080"])?;
    let caller = Caller::new(&namespace);
    let address = namespace.target_address()?;
    let reset = || -> Outcome {
        assert_reset(&caller.connection(&address, 8080)?);
        Ok(())
    };
    reset()?;
    // Started after the client, ended, and started anew.
    for run in 1..=2 {
        let app = App::httpd(&client, "8080", &format!("run {run}"))?;
        namespace.answers(SERVICE, &format!("run {run}"))?;
        drop(app);
        reset()?;
    }
    Ok(())
}

#[test]
fn i5_the_code_restarts() -> Outcome {
    let namespace = namespace()?;
    let client = Client::start(&namespace, &["--expose", "8080"])?;
    // Each run answers with its own number.
    let script = "echo run >>/runs; mkdir -p /www; wc -l </runs >/www/index.html; exec python3 -m http.server --directory /www 8080";
    let app = App::start(&client, &["sh", "-c", script])?;
    namespace.answers(SERVICE, "1")?;
    app.restart()?;
    eventually("the second run", || {
        let page = Caller::new(&namespace).get(SERVICE)?;
        ensure!(page == "2", "{page}");
        Ok(())
    })?;
    Ok(())
}

#[test]
fn i6_200_requests_at_once_on_connections_that_are_kept() -> Outcome {
    let namespace = namespace()?;
    let client = Client::start(&namespace, &["--expose", "8080"])?;
    let _app = start(&client, WEB, &["serve", "8080", "8081"])?;
    namespace.answers(SERVICE, "/ 1")?;
    // The first requests are answered once all of them are there; four more follow on each connection.
    let answers = run(
        &Caller::new(&namespace),
        WEB,
        &["call", "many", "yourcode-service", "8080"],
    )?;
    assert_eq!(answers, "1000");
    Ok(())
}

#[test]
fn i6_an_upgraded_connection_http2_and_an_upload_of_100_mb() -> Outcome {
    let namespace = namespace()?;
    let client = Client::start(&namespace, &["--expose", "8080", "--expose", "8081"])?;
    let _app = start(&client, WEB, &["serve", "8080", "8081"])?;
    namespace.answers(SERVICE, "/ 1")?;
    let caller = Caller::new(&namespace);
    let upgraded = ["call", "upgraded", "yourcode-service", "8080"];
    assert_eq!(run(&caller, WEB, &upgraded)?, "101\nwelcome\nintact");

    let address = namespace.target_address()?;
    let http2 = caller.sh(&format!(
        "curl -sS --max-time 30 --http2-prior-knowledge -w '%{{http_version}}' http://{address}:8081"
    ))?;
    assert_eq!(http2, "stream 1\n2");

    let sums = caller.sh(&format!(
        "head -c 100000000 /dev/urandom >/tmp/upload; curl -sS --fail --max-time 60 -T /tmp/upload {SERVICE}/; echo; sha256sum </tmp/upload"
    ))?;
    let (arrived, sent) = sums.split_once('\n').context("two sums")?;
    assert_eq!(Some(arrived), sent.split(' ').next());
    Ok(())
}
