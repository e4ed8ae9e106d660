//! The program of the image local-telepresence.

use clap::Parser;
use local_client::config::{Cli, Command};
use local_client::error::Error;
use local_client::{health, logging, privileges, run};
use std::path::Path;
use std::process::ExitCode;

// musl's own allocator makes SSH twice as slow.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Version) => {
            println!("local-telepresence {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Some(Command::Healthcheck) => match block_on(health::ask(Path::new(health::SOCKET))) {
            Ok(Ok(())) => ExitCode::SUCCESS,
            Ok(Err(reason)) => {
                println!("{reason}");
                ExitCode::FAILURE
            }
            Err(error) => fail(&error),
        },
        None => {
            logging::start(cli.options.log_format);
            let outcome = privileges::raise_descriptor_limit()
                .and_then(|()| privileges::settle(cli.options.intercept))
                .and_then(|intercept| block_on(run::run(cli.options, intercept)))
                .and_then(|outcome| outcome);
            match outcome {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error),
            }
        }
    }
}

/// Says what ended the program, once, through the log where it was started.
fn fail(error: &Error) -> ExitCode {
    tracing::error!("{error}");
    ExitCode::from(error.exit_code())
}

fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Error> {
    // One thread: to wake another one for each packet takes more time than a second core gives.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Local(format!("cannot start: {error}")))?;
    let output = runtime.block_on(future);
    // What does not end by itself (a blocking file system call) is not waited for: PID 1 ends within a second.
    runtime.shutdown_background();
    Ok(output)
}
