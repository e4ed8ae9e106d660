//! Connections that stand still, and many of them: they cost nobody else anything, and leave nothing behind.

use anyhow::{Context, ensure};
use tests::app::App;
use tests::client::Client;
use tests::command::eventually;
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::programs::{STREAMS, run, serve_streams, start};
use tests::shell::Shell;
use tests::usage::{descriptors_return, of_both};

const MIB: usize = 1 << 20;
const PORT: u16 = 9000;

/// A namespace with the server `streams` and the target, a client for it, and a place for commands in its network.
fn connected() -> Outcome<(Namespace, Client, App)> {
    let namespace = Namespace::new()?.with_target()?;
    serve_streams(&namespace, "streams", PORT)?;
    let client = Client::transparent(&namespace, &[])?;
    let app = App::idle(&client)?;
    Ok((namespace, client, app))
}

/// Waits until the program in `app` says so.
fn says(app: &App, word: &str) -> Outcome {
    eventually(word, || {
        let log = app.log()?;
        ensure!(log.lines().any(|line| line == word), "{log}");
        Ok(())
    })?;
    Ok(())
}

#[test]
fn o11_readers_that_stop_hold_up_nothing_else() -> Outcome {
    const STOPPED: usize = 16;
    /// In KiB: of each stopped connection a first credit of 64 KiB, at either end, and what the others need.
    const GROWTH: usize = 64 << 10;
    /// Of each of them: the credit, and what the sockets of three machines hold.
    const POURED: usize = 32 * MIB;
    let (namespace, client, app) = connected()?;
    let bulk = |mib| run(&app, STREAMS, &["get", "streams", "9000", "get", mib]);
    // What is allocated once, is allocated now.
    bulk("64")?;
    let before = of_both(&namespace, &client)?;

    let count = STOPPED.to_string();
    let stopped = start(&client, STREAMS, &["stop", "streams", "9000", &count])?;
    says(&stopped, "stopped")?;
    let poured = || run(&app, STREAMS, &["show", "streams", "9000", "poured"]);
    eventually("all that pour", || {
        let poured = poured()?;
        ensure!(poured.split(' ').next() == Some(&count), "{poured}");
        Ok(())
    })?;
    assert_eq!(bulk("128")?, format!("{} bytes, intact", 128 * MIB));
    let short = run(&app, STREAMS, &["one_by_one", "streams", "9000", "300"])?;
    assert_eq!(short, "300");
    client.healthy(true)?;

    let after = of_both(&namespace, &client)?;
    for (before, after) in before.iter().zip(&after) {
        assert!(
            after.memory < before.memory + GROWTH,
            "{before:?} → {after:?}"
        );
    }
    // Who pours is held up, too: what nobody reads does not pile up anywhere.
    let poured = poured()?;
    let (_, most) = poured.split_once(' ').context("two numbers")?;
    let most: usize = most.parse()?;
    assert!(most > 0 && most < POURED, "{most} bytes");
    Ok(())
}

#[test]
fn o13_1000_connections_and_then_2000_short_ones_leave_nothing_behind() -> Outcome {
    const CROWD: usize = 1000;
    let (namespace, client, app) = connected()?;
    let short = |count| run(&app, STREAMS, &["one_by_one", "streams", "9000", count]);
    // What stays open once it is, is open now.
    short("50")?;
    let before = of_both(&namespace, &client)?;

    let crowd = CROWD.to_string();
    let crowd = start(&client, STREAMS, &["crowd", "streams", "9000", &crowd])?;
    says(&crowd, "all there")?;
    for (before, now) in before.iter().zip(of_both(&namespace, &client)?) {
        let (before, now) = (before.descriptors, now.descriptors);
        assert!(now >= before + CROWD, "{before} → {now}");
    }
    crowd.sh("touch /leave")?;
    says(&crowd, "all gone")?;
    descriptors_return(&namespace, &client, before)?;

    assert_eq!(short("2000")?, "2000");
    descriptors_return(&namespace, &client, before)?;
    Ok(())
}
