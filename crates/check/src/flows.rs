//! The questions: a JSON list of flows.

use core::fmt;

use cellwall_policy::flow::Protocol;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// `namespace/name` of a pod, or of a workload that stands for its pods.
    Pod(String),
    /// `namespace/name` of a Service.
    Service(String),
    /// An address.
    Ip(String),
    /// Not exactly one of these: what is written.
    Unclear(Vec<String>),
}

impl<'de> Deserialize<'de> for End {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_map(EndVisitor)
    }
}

struct EndVisitor;

impl<'de> Visitor<'de> for EndVisitor {
    type Value = End;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an end of a flow, such as {\"pod\": \"NAMESPACE/NAME\"}")
    }

    // One flow that is unclear is no reason to answer none: so two names, the same one twice included, are told apart here.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<End, A::Error> {
        let (mut fields, mut ends) = (Vec::new(), Vec::new());
        while let Some(field) = map.next_key::<String>()? {
            match field.as_str() {
                "pod" => ends.push(End::Pod(map.next_value()?)),
                "service" => ends.push(End::Service(map.next_value()?)),
                "ip" => ends.push(End::Ip(map.next_value()?)),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
            fields.push(field);
        }
        match ends.pop() {
            Some(end) if fields.len() == 1 => Ok(end),
            _ => Ok(End::Unclear(fields)),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => write!(f, "pod/{name}"),
            Self::Service(name) => write!(f, "service/{name}"),
            Self::Ip(address) => f.write_str(address),
            Self::Unclear(fields) => write!(f, "{{{}}}", fields.join(", ")),
        }
    }
}

/// Protocols that can be asked about.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// An echo request of ICMP or ICMPv6.
    Icmp,
    /// No word for one of them.
    Unknown(String),
}

impl From<String> for Transport {
    fn from(word: String) -> Self {
        match word.as_str() {
            "TCP" => Self::Tcp,
            "UDP" => Self::Udp,
            "SCTP" => Self::Sctp,
            "ICMP" => Self::Icmp,
            _ => Self::Unknown(word),
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Icmp => "ICMP",
            Self::Unknown(word) => word,
        })
    }
}

impl Transport {
    /// Its number in a family, if it is known.
    #[must_use]
    pub const fn protocol(&self, ipv4: bool) -> Option<Protocol> {
        match self {
            Self::Tcp => Some(Protocol::TCP),
            Self::Udp => Some(Protocol::UDP),
            Self::Sctp => Some(Protocol::SCTP),
            Self::Icmp if ipv4 => Some(Protocol::ICMP),
            Self::Icmp => Some(Protocol::ICMPV6),
            Self::Unknown(_) => None,
        }
    }
}

/// What is no list of flows: the field (`[3].dst`), and what is wrong in which line.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {what}")]
pub struct FlowsError {
    field: String,
    // Not its source: whoever prints those too would print it twice.
    what: serde_json::Error,
}

/// Reads a JSON list of flows.
///
/// # Errors
/// When the text is no such list: not JSON, a field of a wrong type, missing, or not known. A protocol that is not known and an
/// end that is unclear are said in the answer.
pub fn read_flows(text: &str) -> Result<Vec<Question>, FlowsError> {
    let mut json = serde_json::Deserializer::from_str(text);
    let flows = serde_path_to_error::deserialize(&mut json).map_err(|error| FlowsError {
        field: match error.path().to_string() {
            path if path == "." => "the list of flows".to_owned(),
            path => path,
        },
        what: error.into_inner(),
    })?;
    json.end().map_err(|what| FlowsError { field: "after the list of flows".to_owned(), what })?;
    Ok(flows)
}
