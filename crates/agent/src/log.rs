//! What the agent writes to standard error.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged unless `RUST_LOG` says otherwise. The client would repeat whole answers that it cannot read, and
/// with them what pods keep in their environment; the sources say what was wrong.
const DEFAULT: &str = "info,kube_client=off";

/// Starts logging; `RUST_LOG` says how much.
pub fn init(format: Format) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let is_terminal = std::io::stderr().is_terminal();
    let log = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(is_terminal);
    match format {
        Format::Text => log.with_target(false).init(),
        Format::Json => log.json().init(),
    }
}
