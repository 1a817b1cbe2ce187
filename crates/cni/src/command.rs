//! The commands of the specification, section "CNI operations".

use std::ffi::OsString;
use std::io::Read;
use std::time::Duration;

use cellwall_api::v1alpha1::Sandbox;
use serde_json::{Map, Value, json};

use crate::agent::{Answer as Asked, Question, ask};
use crate::entry::{Entry, FailurePolicy, TYPE};
use crate::environment::{Environment, Pod};
use crate::error::{Code, Error};
use crate::network::{Network, VERSIONS};
use crate::previous;

/// How long the start of an exempt pod is held up, at most, to tell the agent of it.
const COURTESY: Duration = Duration::from_millis(250);
/// How long CHECK waits for an agent that is restarting.
const CHECK: Duration = Duration::from_secs(2);

/// What a runtime is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// For stdout.
    pub text: String,
    /// The exit code is not 0.
    pub failed: bool,
    /// For stderr, where a runtime's log may have it.
    pub notes: Vec<String>,
}

/// Performs what the environment asks for. Never panics, whatever it is given.
pub fn run(stdin: impl Read, environment: impl Fn(&str) -> Option<OsString>) -> Answer {
    let environment = Environment(environment);
    let network = Network::read(stdin);
    let newest = VERSIONS[VERSIONS.len() - 1];
    let said = network.as_ref().ok().filter(|_| !cellwall_abi::planted("answers-are-of-the-newest-version"));
    let version = said.map_or(newest, Network::version).to_owned();
    let mut notes = Vec::new();
    let done = environment.command().and_then(|command| match command.as_str() {
        "ADD" => add(&network?, &environment, &mut notes),
        "CHECK" => check(&network?, &environment, &mut notes).map(|()| String::new()),
        "STATUS" => status(&network?).map(|()| String::new()),
        // What the pod had goes with its interface, which the agent sees go. A pod whose removal fails stays
        // Terminating for ever, so nothing is a reason to fail, a configuration that cannot be read included.
        "DEL" | "GC" if cellwall_abi::planted("del-reads-its-configuration") => {
            network?.check_version().map(|()| String::new())
        }
        "DEL" | "GC" => Ok(String::new()),
        "VERSION" => Ok(json!({"cniVersion": version, "supportedVersions": VERSIONS}).to_string()),
        other => Err(Error::new(
            Code::InvalidEnvironment,
            format!("CNI_COMMAND is `{other}`; known are ADD, DEL, CHECK, GC, STATUS and VERSION"),
        )),
    });
    let failed = done.is_err();
    let mut text = done.unwrap_or_else(|error| error.to_json(&version));
    if !text.is_empty() {
        text.push('\n');
    }
    Answer { text, failed, notes }
}

fn add<F: Fn(&str) -> Option<OsString>>(
    network: &Network,
    environment: &Environment<F>,
    notes: &mut Vec<String>,
) -> Result<String, Error> {
    network.check_version()?;
    let entry = Entry::read(&network.keys)?;
    let previous = previous(network)?;
    let pod = environment.pod()?;
    let sandbox = sandbox(&pod, previous)?;
    let passed = || network.previous_text().ok_or_else(no_previous);
    if is_exempt(&entry, &pod) {
        // It is not waited for, but enforced all the sooner when the agent knows of it.
        ask(&entry, Question::Wait(&sandbox), COURTESY);
        return passed();
    }
    let why = match ask(&entry, Question::Wait(&sandbox), entry.timeout()) {
        Asked::Said(enforced) if enforced.enforced => return passed(),
        Asked::Uninstalled => {
            notes.push(uninstalled(&entry));
            return passed();
        }
        Asked::Said(enforced) => enforced.message,
        Asked::Silent(why) => why,
    };
    match entry.failure_policy {
        FailurePolicy::Fail if cellwall_abi::planted("a-failed-add-passes") => passed(),
        FailurePolicy::Ignore => {
            notes.push(format!("Pod {}/{} starts all the same: {why}", pod.namespace, pod.name));
            passed()
        }
        FailurePolicy::Fail => Err(Error::new(
            Code::TryAgainLater,
            format!(
                "network policy is not enforced on Pod {}/{} after {} s: {why}. The kubelet tries again. If cellwall is \
                 to be gone from this node, run `cellwall node cleanup` on it",
                pod.namespace, pod.name, entry.timeout_seconds
            ),
        )),
    }
}

fn check<F: Fn(&str) -> Option<OsString>>(
    network: &Network,
    environment: &Environment<F>,
    notes: &mut Vec<String>,
) -> Result<(), Error> {
    network.check_version()?;
    let entry = Entry::read(&network.keys)?;
    let previous = previous(network)?;
    let pod = environment.pod()?;
    let sandbox = sandbox(&pod, previous)?;
    if is_exempt(&entry, &pod) {
        return Ok(());
    }
    match ask(&entry, Question::Check(&sandbox), CHECK) {
        Asked::Said(enforced) if enforced.enforced => Ok(()),
        Asked::Said(enforced) => Err(Error::new(Code::NotEnforced, enforced.message)),
        Asked::Uninstalled => {
            notes.push(uninstalled(&entry));
            Ok(())
        }
        Asked::Silent(why) if entry.failure_policy == FailurePolicy::Ignore => {
            notes.push(why);
            Ok(())
        }
        Asked::Silent(why) => Err(Error::new(Code::TryAgainLater, why)),
    }
}

/// Fine as long as this program can be run and its entry can be read. The runtime makes the whole node not ready when a
/// plugin says that it cannot serve (code 50), and an agent is away for some seconds with every upgrade: all pods of the
/// node would leave its Services for it. ADD waits for the agent by itself, and without one fails safely.
fn status(network: &Network) -> Result<(), Error> {
    network.check_version()?;
    let entry = Entry::read(&network.keys)?;
    if cellwall_abi::planted("status-asks-the-agent") && !entry.socket.exists() {
        return Err(Error::new(Code::TryAgainLater, "no agent"));
    }
    Ok(())
}

fn previous(network: &Network) -> Result<&Map<String, Value>, Error> {
    network.previous().ok_or_else(no_previous)
}

fn no_previous() -> Error {
    Error::new(
        Code::InvalidConfig,
        format!(
            "there is no prevResult: {TYPE} comes last in a list of plugins, after one that makes the interface"
        ),
    )
}

fn sandbox(pod: &Pod, previous: &Map<String, Value>) -> Result<Sandbox, Error> {
    let Pod { namespace, name, uid } = pod.clone();
    let addresses = previous::addresses(previous)?;
    Ok(Sandbox { namespace, name, uid, interfaces: previous::interfaces(previous), addresses })
}

fn is_exempt(entry: &Entry, pod: &Pod) -> bool {
    entry.exempt_namespaces.contains(&pod.namespace) && !cellwall_abi::planted("exempt-pods-wait")
}

fn uninstalled(entry: &Entry) -> String {
    let file = entry.installed_file.clone().unwrap_or_default();
    format!(
        "nothing is enforced: {} is gone, so cellwall is not installed any more; take the {TYPE} entry out of the CNI \
         configuration",
        file.display()
    )
}
