//! Debugging by hand: OpenSSH through `kubectl port-forward`. The README's own lines are run by `start::s1_m1_the_readme_as_printed`.

use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use tests::app;
use tests::app::App;
use tests::caller::Caller;
use tests::client::Client;
use tests::command::{eventually, run, run_with_input};
use tests::manifests::{HARD_TARGET, busybox, service_for};
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::programs::{self, STREAMS, python, serve_streams};
use tests::shell::Shell;
use tests::ssh::Ssh;

const REQUEST: &str = "GET / HTTP/1.0\r\n\r\n";

fn user() -> Outcome<(Namespace, Ssh)> {
    let namespace = Namespace::new()?.with_things()?.with_target()?;
    let ssh = Ssh::new(&namespace)?;
    Ok((namespace, ssh))
}

/// What a web server behind a Unix socket answers.
fn ask(socket: &str) -> Result<String> {
    let mut stream = eventually("the socket", || Ok(UnixStream::connect(socket)?))?;
    stream.write_all(REQUEST.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn m1_local_forward() -> Outcome {
    let (namespace, ssh) = user()?;
    let socket = namespace.home().join("socket").display().to_string();
    let _ssh = ssh.keep(&["-L", &format!("{socket}:thing1:7001")])?;
    let answer = ask(&socket)?;
    assert!(
        answer.contains("200 OK") && answer.ends_with("thing1\n"),
        "{answer}"
    );
    Ok(())
}

#[test]
fn m1_remote_forward() -> Outcome {
    let namespace = Namespace::new()?.with_things()?;
    namespace.apply(HARD_TARGET)?;
    let ssh = Ssh::new(&namespace)?;
    let server = TcpListener::bind("127.0.0.1:0")?;
    let here = format!("127.0.0.1:{}", server.local_addr()?.port());
    // Ends with the test's process.
    thread::spawn(move || {
        for stream in server.incoming().flatten() {
            thread::spawn(move || answer(stream));
        }
    });
    // For all that reach the pod, and for the pod itself alone, at any port.
    let (all, pod) = (format!(":9000:{here}"), format!("0:{here}"));
    let mut ssh = ssh.keep(&["-R", &all, "-R", &pod])?;
    let port: String = ssh.wait_for("the port", |line| {
        let (port, _) = line.strip_prefix("Allocated port ")?.split_once(' ')?;
        Some(port.to_owned())
    })?;
    let address = namespace.target_address()?;
    namespace.answers(&format!("http://{address}:9000"), "from the laptop")?;
    assert!(
        Caller::new(&namespace)
            .get(&format!("http://{address}:{port}"))
            .is_err()
    );
    let inside = Caller::of(&namespace, "deploy/yourcode-deployment", "decoy");
    assert_eq!(
        inside.sh(&format!("wget -qO- http://127.0.0.1:{port}"))?,
        "from the laptop"
    );
    Ok(())
}

/// A web server's part of one connection.
fn answer(mut stream: TcpStream) -> Result<()> {
    let mut request = [0; 1024];
    ensure!(stream.read(&mut request)? > 0);
    stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 15\r\n\r\nfrom the laptop")?;
    Ok(())
}

#[test]
fn m1_dynamic_forward() -> Outcome {
    let (namespace, ssh) = user()?;
    let (_ssh, proxy) = ssh.listen("-D", "", &[])?;
    let proxy = proxy.to_string();
    let curl = [
        "curl",
        "-sS",
        "--max-time",
        "10",
        "--socks5-hostname",
        &proxy,
        "http://thing1:7001",
    ];
    let mut curl = app::elsewhere(&namespace.cluster, "host", &curl);
    assert_eq!(run(&mut curl)?, "thing1\n");
    Ok(())
}

/// OpenSSH makes new keys after each gigabyte (here: after each MiB, and what came meanwhile), in the midst of a download.
#[test]
fn m1_new_keys_under_load() -> Outcome {
    const MIB: u32 = 64;
    let namespace = Namespace::new()?.with_target()?;
    let script = format!(
        "mkdir /www && cd /www && dd if=/dev/urandom of=bulk bs=1M count={MIB} && md5sum <bulk >sum && exec httpd -f -p 80"
    );
    namespace.apply(&(busybox("bulk", 80, &script) + &service_for("bulk", 80, "bulk", 80)))?;
    namespace.ready("pod/bulk")?;
    let ssh = Ssh::new(&namespace)?;
    let (ssh, proxy) = ssh.listen("-D", "", &["-v", "-o", "RekeyLimit=1M"])?;
    let fetch = |page: &str, then: &str| {
        let script = format!(
            "curl -sS --fail --max-time 60 --socks5-hostname {proxy} http://bulk/{page} {then}"
        );
        run(&mut app::elsewhere(
            &namespace.cluster,
            "host",
            &["sh", "-c", &script],
        ))
    };
    // Where a Service leads is known some time after its pod is ready.
    eventually("the Service", || fetch("sum", ""))?;
    let sum = Caller::of(&namespace, "pod/bulk", "bulk").sh("cat /www/sum")?;
    assert_eq!(fetch("bulk", "| md5sum")?.trim_end(), sum);
    let said = ssh.said()?;
    assert!(
        said.matches("SSH2_MSG_NEWKEYS received").count() > 8,
        "{said}"
    );
    Ok(())
}

#[test]
fn m1_standard_input_and_output() -> Outcome {
    let (_namespace, ssh) = user()?;
    let mut command = ssh.ssh();
    command.args(["-W", "thing1:7001", "telepresence@localhost"]);
    let answer = run_with_input(&mut command, REQUEST)?;
    assert!(answer.ends_with("thing1\n"), "{answer}");
    Ok(())
}

#[test]
fn m1_multiplexed() -> Outcome {
    let (namespace, ssh) = user()?;
    let control = namespace.home().join("control").display().to_string();
    let _master = ssh.keep(&["-M", "-S", &control])?;
    let through = |options: &[&str]| {
        let output = ssh.try_run(&[&["-S", &control], options].concat(), &[])?;
        ensure!(
            output.status.success(),
            "{options:?}: {}",
            tests::command::told(&output)
        );
        Ok(())
    };
    eventually("the master", || through(&["-O", "check"]))?;
    let sockets: Vec<_> = (1..=2)
        .map(|i| {
            namespace
                .home()
                .join(format!("socket{i}"))
                .display()
                .to_string()
        })
        .collect();
    for (socket, thing) in sockets.iter().zip(["thing1:7001", "thing2:7002"]) {
        through(&["-O", "forward", "-L", &format!("{socket}:{thing}")])?;
    }
    assert!(ask(&sockets[0])?.ends_with("thing1\n") && ask(&sockets[1])?.ends_with("thing2\n"));
    let mut command = ssh.ssh();
    command.args([
        "-S",
        &control,
        "-W",
        "thing2:7002",
        "telepresence@localhost",
    ]);
    assert!(run_with_input(&mut command, REQUEST)?.ends_with("thing2\n"));
    through(&["-O", "exit"])?;
    Ok(())
}

#[test]
fn m2_one_sentence_instead_of_a_shell() -> Outcome {
    let (_namespace, ssh) = user()?;
    for options in [&[][..], &["-tt"]] {
        let output = ssh.try_run(options, &[])?;
        let said = String::from_utf8(output.stdout)?;
        assert!(output.status.success(), "{options:?}: {:?}", output.status);
        assert_eq!(said.lines().count(), 1, "{options:?}: {said}");
        let sentence = said.lines().next().context("a line")?;
        assert!(
            sentence.contains("forwards ports") && sentence.ends_with('.'),
            "{sentence}"
        );
    }
    Ok(())
}

/// Each waits for the other one before its bulk begins, and has as much of it.
#[test]
fn m3_bulk_through_openssh_and_through_a_session_at_once() -> Outcome {
    let namespace = Namespace::new()?.with_target()?;
    serve_streams(&namespace, "bulk", 9000)?;
    let client = Client::start(&namespace, &[])?;
    let app = App::idle(&client)?;
    let ssh = Ssh::new(&namespace)?;
    let (_ssh, address) = ssh.listen("-L", ":bulk:9000", &[])?;
    let port = address.port().to_string();
    let get = |host, port| ["get", host, port, "get-together", "128"];
    let by_hand = python(STREAMS, &get("127.0.0.1", &port));
    let mut by_hand = app::elsewhere(&namespace.cluster, "host", &by_hand);
    let got = thread::scope(|scope| {
        let by_hand = scope.spawn(|| run(&mut by_hand));
        let by_session = programs::run(&app, STREAMS, &get("bulk", "9000"));
        by_hand.join().map(|by_hand| [by_hand, by_session])
    });
    for got in got.map_err(|_| "it panicked")? {
        assert_eq!(got?.trim_end(), "134217728 bytes, intact");
    }
    let log = client.logs()?;
    assert!(!log.contains("connected again"), "{log}");
    Ok(())
}
