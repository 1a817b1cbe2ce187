//! What a runtime writes to a plugin's stdin: the plugin's entry, with what the specification adds to it.

use std::io::Read;

use serde_json::{Map, Value};

use crate::error::{Code, Error};
use crate::json;

/// What a configuration may take. The largest part is what the plugins before ours answered, some kilobytes.
const LARGEST: u64 = 1 << 20;
/// Versions of the specification that this plugin speaks.
pub(crate) const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The configuration.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    /// The text as it came.
    text: String,
    /// The text as an object.
    pub(crate) keys: Map<String, Value>,
}

impl Network {
    pub(crate) fn read(input: impl Read) -> Result<Self, Error> {
        let mut bytes = Vec::new();
        let read = input.take(LARGEST + 1).read_to_end(&mut bytes);
        read.map_err(|error| {
            Error::new(Code::Io, format!("cannot read the configuration from stdin: {error}"))
        })?;
        if bytes.len() as u64 > LARGEST {
            return Err(undecodable("is longer than 1 MiB"));
        }
        let text = String::from_utf8(bytes).map_err(|_| undecodable("is not UTF-8"))?;
        if text.trim().is_empty() {
            return Err(undecodable("is empty: this program is called by a container runtime, not by hand"));
        }
        match serde_json::from_str(&text) {
            Ok(Value::Object(keys)) => Ok(Self { text, keys }),
            Ok(_) => Err(undecodable("is not a JSON object")),
            Err(error) => Err(undecodable(&format!("is not JSON: {error}"))),
        }
    }

    /// The version that answers have to be in; the newest where none is said that could be.
    pub(crate) fn version(&self) -> &str {
        self.keys.get("cniVersion").and_then(Value::as_str).unwrap_or(VERSIONS[VERSIONS.len() - 1])
    }

    /// An error unless this plugin speaks the version.
    pub(crate) fn check_version(&self) -> Result<(), Error> {
        let said = self.keys.get("cniVersion");
        if said.and_then(Value::as_str).is_some_and(|version| VERSIONS.contains(&version)) {
            return Ok(());
        }
        let said = said.map_or_else(|| "not set".to_owned(), Value::to_string);
        Err(Error::new(
            Code::IncompatibleVersion,
            format!(
                "cniVersion of the configuration is {said}, and this plugin speaks {}: set one of them in the \
                 configuration list",
                VERSIONS.join(", ")
            ),
        ))
    }

    /// What the plugins before ours answered.
    pub(crate) fn previous(&self) -> Option<&Map<String, Value>> {
        self.keys.get("prevResult")?.as_object()
    }

    /// The same as text: byte for byte, but for a version that is not the configuration's.
    pub(crate) fn previous_text(&self) -> Option<String> {
        let previous = self.previous()?;
        if previous.get("cniVersion").and_then(Value::as_str) == Some(self.version()) {
            return Some(self.text[json::member(&self.text, "prevResult")?].to_owned());
        }
        // "The runtime must" convert it; one that did not has at least to be told which version it gets back.
        let mut previous = previous.clone();
        previous.insert("cniVersion".to_owned(), self.version().into());
        Some(Value::Object(previous).to_string())
    }
}

fn undecodable(what: &str) -> Error {
    Error::new(Code::Decoding, format!("the configuration on stdin {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::read(text.as_bytes()).expect(text)
    }

    #[test]
    fn what_came_before_is_passed_on_byte_for_byte() {
        let previous = "{ \"ips\":[{\"address\" : \"10.0.0.2/24\"}],\"z\":1.50, \"cniVersion\":\"1.0.0\"}";
        let text =
            format!("{{\"cniVersion\": \"1.0.0\", \"prevResult\": {previous}, \"type\": \"cellwall-cni\"}}");
        assert_eq!(network(&text).previous_text().as_deref(), Some(previous));
        let other = network(r#"{"cniVersion": "0.4.0", "prevResult": {"ips": [], "cniVersion": "1.0.0"}}"#);
        assert_eq!(other.previous_text().as_deref(), Some(r#"{"cniVersion":"0.4.0","ips":[]}"#));
        assert_eq!(network(r#"{"prevResult": null}"#).previous_text(), None);
        assert_eq!(network("{}").previous_text(), None);
    }

    #[test]
    fn versions() {
        for version in VERSIONS {
            let network = network(&format!(r#"{{"cniVersion": "{version}"}}"#));
            assert_eq!((network.check_version(), network.version()), (Ok(()), version));
        }
        for text in ["{}", r#"{"cniVersion": "0.2.0"}"#, r#"{"cniVersion": 1}"#, r#"{"cniVersion": ""}"#] {
            let error = network(text).check_version().expect_err(text);
            assert!(error.message.contains("0.3.1, 0.4.0, 1.0.0, 1.1.0"), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let long = format!("{{\"a\": \"{}\"}}", "x".repeat(1 << 20));
        let deep = "[".repeat(100_000);
        for (bytes, word) in [
            (&b""[..], "is empty"),
            (b" \n", "is empty"),
            (b"\xff", "UTF-8"),
            (b"[]", "object"),
            (b"{\"a\":", "not JSON"),
            (long.as_bytes(), "1 MiB"),
            (deep.as_bytes(), "not JSON"),
        ] {
            let error = Network::read(bytes).expect_err(word);
            assert_eq!(error.code, Code::Decoding);
            assert!(error.message.contains(word), "{error}");
        }
    }
}
