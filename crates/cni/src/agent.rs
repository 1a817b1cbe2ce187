//! Asking the agent, which may be restarting: until an answer comes or the time is over.

use std::path::Path;
use std::time::Duration;

use cellwall_api::client::{Client, ClientError};
use cellwall_api::v1alpha1::{Enforced, Sandbox};
use tokio::time::{Instant, sleep, timeout_at};

use crate::entry::Entry;
use crate::files;

/// How long between two attempts to reach an agent that is not there: an upgrade of it takes some seconds.
const AGAIN: Duration = Duration::from_millis(50);
/// The agent answers this much before the time is over, so that what is missing can be said.
const MARGIN: Duration = Duration::from_millis(300);

/// What came of asking.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The agent answered.
    Said(Enforced),
    /// It did not; why.
    Silent(String),
    /// It did not, and we are not installed any more.
    Uninstalled,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Question<'a> {
    /// To wait for a pod; and not to wait when the time is shorter than [`MARGIN`].
    Wait(&'a Sandbox),
    /// Whether a pod is enforced.
    Check(&'a Sandbox),
}

/// Asks until `patience` is over.
pub(crate) fn ask(entry: &Entry, question: Question<'_>, patience: Duration) -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(ask_until(entry, question, Instant::now() + patience)),
        Err(error) => Answer::Silent(format!("cannot start a runtime: {error}")),
    }
}

async fn ask_until(entry: &Entry, question: Question<'_>, deadline: Instant) -> Answer {
    let mut last = None;
    loop {
        let Ok(asked) = timeout_at(deadline, once(&entry.socket, question, deadline)).await else {
            break;
        };
        match asked {
            Ok(enforced) => return Answer::Said(enforced),
            // It was understood, and will not be understood better later.
            Err(error @ ClientError::Call { .. }) => return Answer::Silent(error.to_string()),
            Err(error) => last = Some(error.to_string()),
        }
        // An agent that answers is proof enough that we are installed, so it comes first.
        if is_uninstalled(entry) {
            return Answer::Uninstalled;
        }
        sleep(AGAIN).await;
        if Instant::now() >= deadline {
            break;
        }
    }
    if is_uninstalled(entry) {
        return Answer::Uninstalled;
    }
    let silent = || format!("the agent took the connection on {} and did not answer", entry.socket.display());
    Answer::Silent(last.unwrap_or_else(silent))
}

fn is_uninstalled(entry: &Entry) -> bool {
    let planted = cellwall_abi::planted("a-silent-agent-is-uninstalled");
    planted || entry.installed_file.as_deref().is_some_and(files::is_gone)
}

async fn once(socket: &Path, question: Question<'_>, deadline: Instant) -> Result<Enforced, ClientError> {
    let mut client = Client::connect(socket).await?;
    match question {
        Question::Wait(sandbox) => {
            let wait = deadline.saturating_duration_since(Instant::now()).saturating_sub(MARGIN);
            client.wait_endpoint(sandbox.clone(), wait).await
        }
        Question::Check(sandbox) => client.check_endpoint(sandbox.clone()).await,
    }
}
