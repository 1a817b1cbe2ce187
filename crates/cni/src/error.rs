//! Errors in the words of the CNI specification, section "Error".

use serde::Serialize;

/// Code of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// 1: "Incompatible CNI version".
    IncompatibleVersion,
    /// 2: "Unsupported field in network configuration. The error message must contain the key and value".
    UnsupportedField,
    /// 4: "Invalid necessary environment variables".
    InvalidEnvironment,
    /// 5: "I/O failure".
    Io,
    /// 6: "Failed to decode content".
    Decoding,
    /// 7: "Invalid network config".
    InvalidConfig,
    /// 11: "Try again later".
    TryAgainLater,
    /// 100, the first of a plugin's own: the pod is not enforced.
    NotEnforced,
}

impl Code {
    /// The number.
    pub const fn number(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::UnsupportedField => 2,
            Self::InvalidEnvironment => 4,
            Self::Io => 5,
            Self::Decoding => 6,
            Self::InvalidConfig => 7,
            Self::TryAgainLater => 11,
            Self::NotEnforced => 100,
        }
    }
}

/// An error as the runtime is told, and with it the kubelet's event on the pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Its code.
    pub code: Code,
    /// What is wrong and what to do.
    pub message: String,
}

/// An error in JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Printed<'a> {
    cni_version: &'a str,
    code: u32,
    msg: &'a str,
}

impl Error {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The error as JSON, in the version that the configuration is of.
    pub(crate) fn to_json(&self, version: &str) -> String {
        let printed = Printed { cni_version: version, code: self.code.number(), msg: &self.message };
        serde_json::to_string(&printed).expect("text")
    }
}
