//! Bytes by the gibibyte: each of them arrives, and in order, whatever else goes on.

use anyhow::{Context, Result};
use tests::caller::Caller;
use tests::client::Client;
use tests::namespace::Namespace;
use tests::outcome::Outcome;
use tests::programs::{STREAMS, run, serve_streams, start};
use tests::{app::App, command::eventually};

const MIB: usize = 1 << 20;
const PORT: u16 = 9000;

/// A namespace with the server `bulk` and the target.
fn namespace() -> Outcome<Namespace> {
    let namespace = Namespace::new()?.with_target()?;
    serve_streams(&namespace, "bulk", PORT)?;
    Ok(namespace)
}

fn intact(mib: usize) -> String {
    format!("{} bytes, intact", mib * MIB)
}

#[test]
fn o8_64_mib_follow_the_end_of_either_direction() -> Outcome {
    const BULK: &str = "64";
    let namespace = namespace()?;
    let client = Client::transparent(&namespace, &["--expose", "9001"])?;
    let app = App::idle(&client)?;
    for verb in ["get_after_end", "put_after_end"] {
        let got = run(&app, STREAMS, &[verb, "bulk", "9000", BULK])?;
        assert_eq!(got, intact(64), "from the code: {verb}");
    }

    let _server = start(&client, STREAMS, &["serve", "9001"])?;
    let address = namespace.target_address()?;
    let caller = Caller::of(&namespace, "pod/bulk", "bulk");
    let call = |verb| run(&caller, STREAMS, &[verb, &address, "9001", BULK]);
    // The code is reset until it listens.
    eventually("the code", || {
        run(&app, STREAMS, &["get", "127.0.0.1", "9001", "get", "0"])
    })?;
    for verb in ["get_after_end", "put_after_end"] {
        assert_eq!(call(verb)?, intact(64), "to the code: {verb}");
    }
    Ok(())
}

#[test]
fn o12_a_gibibyte_is_intact_and_pings_pass_it() -> Outcome {
    /// Far less than a stream's buffers on the way hold: a ping that waited for its turn behind the bulk would see more of it pass.
    const PASSES: usize = 4 * MIB;
    let namespace = namespace()?;
    let client = Client::transparent(&namespace, &[])?;
    let app = App::idle(&client)?;
    let said = run(&app, STREAMS, &["get_and_ping", "bulk", "9000", "1024"])?;
    let (bulk, pings) = said.split_once("; ").context("two results")?;
    assert_eq!(bulk, intact(1024), "{said}");
    let number = |nth| -> Result<usize> {
        let mut numbers = pings.split(' ').filter_map(|word| word.parse().ok());
        numbers.nth(nth).with_context(|| pings.to_owned())
    };
    let (count, median) = (number(0)?, number(1)?);
    assert!(count > 100 && median < PASSES, "{pings}");
    Ok(())
}

/// Deadlock: everything is sent back, on so many connections at once that every buffer on the way is full.
#[test]
fn o12_echoes_on_1_4_and_16_connections_do_not_block_each_other() -> Outcome {
    let namespace = namespace()?;
    let client = Client::transparent(&namespace, &[])?;
    let app = App::idle(&client)?;
    for count in ["1", "4", "16"] {
        let said = run(&app, STREAMS, &["echoes", "bulk", "9000", count, "64"])?;
        assert_eq!(said, format!("{count} intact"));
    }
    Ok(())
}
