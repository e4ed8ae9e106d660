//! Whatever a program says to the SOCKS5 proxy: it is understood or refused, and of a datagram no byte is added.
#![no_main]

use fast_socks5::parse_udp_request;
use fast_socks5::server::Socks5ServerProtocol;
use futures::executor::block_on;
use libfuzzer_sys::fuzz_target;
use tokio::io::{join, sink};

fuzz_target!(|input: &[u8]| {
    block_on(async {
        if let Ok((_, _, payload)) = parse_udp_request(input).await {
            assert!(input.ends_with(payload));
        }
        let Ok(greeted) = Socks5ServerProtocol::accept_no_auth(join(input, sink())).await else {
            return;
        };
        if let Ok((_, _, address)) = greeted.read_command().await {
            let _ = address.into_string_and_port();
        }
    });
});
