//! The questions: a JSON list of flows.

use core::fmt;

use cellwall_policy::flow::Protocol;
use serde::Deserialize;

/// A flow that is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Who opens the connection.
    pub src: End,
    /// To whom.
    pub dst: End,
    /// Protocol.
    pub protocol: Transport,
    /// Destination port. Any number can be written; what is none is said in the answer.
    #[serde(default)]
    pub port: Option<i64>,
}

/// One end of a flow, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// `namespace/name` of a pod, or of a workload that stands for its pods.
    Pod(String),
    /// `namespace/name` of a Service.
    Service(String),
    /// An address.
    Ip(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => write!(f, "pod/{name}"),
            Self::Service(name) => write!(f, "service/{name}"),
            Self::Ip(address) => f.write_str(address),
        }
    }
}

/// Protocols that can be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// An echo request of ICMP or ICMPv6.
    Icmp,
}

impl Transport {
    /// Its number in a family.
    #[must_use]
    pub const fn protocol(self, ipv4: bool) -> Protocol {
        match self {
            Self::Tcp => Protocol::TCP,
            Self::Udp => Protocol::UDP,
            Self::Sctp => Protocol::SCTP,
            Self::Icmp if ipv4 => Protocol::ICMP,
            Self::Icmp => Protocol::ICMPV6,
        }
    }
}

/// What is no list of flows: the field (`[3].dst`), and what is wrong in which line.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {source}")]
pub struct FlowsError {
    field: String,
    source: serde_json::Error,
}

/// Reads a JSON list of flows.
///
/// # Errors
/// When the text is no such list: not JSON, a field of a wrong type, missing, or not known.
pub fn read_flows(text: &str) -> Result<Vec<Question>, FlowsError> {
    let mut json = serde_json::Deserializer::from_str(text);
    let flows = serde_path_to_error::deserialize(&mut json).map_err(|error| FlowsError {
        field: match error.path().to_string() {
            path if path == "." => "the list of flows".to_owned(),
            path => path,
        },
        source: error.into_inner(),
    })?;
    json.end().map_err(|source| FlowsError { field: "after the list of flows".to_owned(), source })?;
    Ok(flows)
}
