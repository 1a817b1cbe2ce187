//! Our entry in a list of plugins: the agent writes it, the plugin reads it.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::{Code, Error};

/// The name of the binary, which is the `type` of its entry.
pub const TYPE: &str = "cellwall-cni";
/// How long ADD waits unless the entry says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that an entry may ask for: runtimes give up on a plugin themselves.
const LONGEST_S: u64 = 60;
/// Namespaces on which the agent itself may depend.
pub const EXEMPT: &str = "kube-system";

/// What becomes of a pod whose enforcement nobody confirms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum FailurePolicy {
    /// It does not start; the kubelet tries again.
    #[default]
    Fail,
    /// It starts.
    Ignore,
}

/// Our entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "cellwall-cni", rename_all = "camelCase")]
pub struct Entry {
    /// Where the agent listens.
    pub socket: PathBuf,
    /// How long ADD waits, in seconds, 1 to 60.
    pub timeout_seconds: u64,
    /// What ADD does when it has waited in vain.
    pub failure_policy: FailurePolicy,
    /// Namespaces whose pods are not waited for.
    pub exempt_namespaces: Vec<String>,
    /// A file that is there as long as we are installed. Without it, and without an agent that answers, everything
    /// passes: see [`crate::files`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installed_file: Option<PathBuf>,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            socket: PathBuf::from(cellwall_api::DEFAULT_SOCKET),
            timeout_seconds: TIMEOUT.as_secs(),
            failure_policy: FailurePolicy::default(),
            exempt_namespaces: vec![EXEMPT.to_owned()],
            installed_file: None,
        }
    }
}

/// Keys that the specification, or a runtime, may add to any plugin's entry.
const OF_THE_SPECIFICATION: [&str; 10] = [
    "cniVersion",
    "name",
    "type",
    "prevResult",
    "runtimeConfig",
    "capabilities",
    "args",
    "ipMasq",
    "ipam",
    "dns",
];

impl Entry {
    /// Reads an entry, as a runtime hands it to the plugin. A key that nobody knows is an error: a `failurPolicy` that
    /// is silently nothing would be worse.
    pub(crate) fn read(keys: &Map<String, Value>) -> Result<Self, Error> {
        let mut entry = Self::default();
        for (key, value) in keys {
            let wrong = |what: &str| {
                Error::new(
                    Code::InvalidConfig,
                    format!("`{key}` of the {TYPE} entry is {value}: it has to be {what}"),
                )
            };
            match key.as_str() {
                "socket" => entry.socket = path(value).ok_or_else(|| wrong("an absolute path"))?,
                "installedFile" => {
                    entry.installed_file = Some(path(value).ok_or_else(|| wrong("an absolute path"))?);
                }
                "timeoutSeconds" => {
                    let seconds = value.as_u64().filter(|seconds| (1..=LONGEST_S).contains(seconds));
                    entry.timeout_seconds = seconds.ok_or_else(|| wrong("a number from 1 to 60"))?;
                }
                "failurePolicy" => {
                    entry.failure_policy = match value.as_str() {
                        Some("Fail") => FailurePolicy::Fail,
                        Some("Ignore") => FailurePolicy::Ignore,
                        _ => return Err(wrong("`Fail` or `Ignore`")),
                    }
                }
                "exemptNamespaces" => {
                    let names = value.as_array().and_then(|all| all.iter().map(Value::as_str).collect());
                    let names: Vec<&str> = names.ok_or_else(|| wrong("a list of names"))?;
                    entry.exempt_namespaces = names.into_iter().map(str::to_owned).collect();
                }
                // Those with a slash are a runtime's own, such as `cni.dev/valid-attachments`.
                known if OF_THE_SPECIFICATION.contains(&known) || known.contains('/') => {}
                _ => {
                    return Err(Error::new(
                        Code::UnsupportedField,
                        format!(
                            "`{key}`: {value} in the {TYPE} entry is not known to this version; correct its name, or \
                             install the version of the plugin that the agent has"
                        ),
                    ));
                }
            }
        }
        Ok(entry)
    }

    /// How long ADD waits.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    /// The entry as it stands in a list of plugins.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("names and paths of UTF-8")
    }
}

fn path(value: &Value) -> Option<PathBuf> {
    value.as_str().map(PathBuf::from).filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Entry, Error> {
        let value: Value = serde_json::from_str(text).expect("JSON");
        Entry::read(value.as_object().expect("an object"))
    }

    #[test]
    fn what_is_written_is_read() {
        let entry = Entry {
            timeout_seconds: 7,
            failure_policy: FailurePolicy::Ignore,
            installed_file: Some(PathBuf::from("/etc/cni/net.d/cellwall.installed")),
            ..Entry::default()
        };
        assert_eq!(read(&entry.to_json()), Ok(entry));
        assert_eq!(read(r#"{"type": "cellwall-cni"}"#), Ok(Entry::default()));
        let of_others = r#"{"type": "x", "args": 1, "runtimeConfig": {}, "cni.dev/valid-attachments": []}"#;
        assert_eq!(read(of_others), Ok(Entry::default()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, code, word) in [
            (r#"{"failurPolicy": "Ignore"}"#, 2, r#"`failurPolicy`: "Ignore""#),
            (r#"{"failurePolicy": "ignore"}"#, 7, "`Fail` or `Ignore`"),
            (r#"{"timeoutSeconds": 0}"#, 7, "1 to 60"),
            (r#"{"timeoutSeconds": "10"}"#, 7, "1 to 60"),
            (r#"{"socket": "agent.sock"}"#, 7, "absolute"),
            (r#"{"installedFile": 1}"#, 7, "absolute"),
            (r#"{"exemptNamespaces": "kube-system"}"#, 7, "a list"),
            (r#"{"exemptNamespaces": [1]}"#, 7, "a list"),
        ] {
            let error = read(text).expect_err(text);
            assert_eq!(error.code.number(), code, "{text}");
            assert!(error.message.contains(word), "{text}: {}", error.message);
        }
    }
}
