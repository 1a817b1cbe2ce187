//! What this process may do, asked before the kernel answers EPERM to something else.

use rustix::thread::{CapabilitySet, capabilities};

use crate::error::OpenError;

/// What the data path needs, by name: tables and programs, interfaces, and programs that the verifier does not slow
/// down with barriers.
const NEEDED: [(&str, CapabilitySet); 3] = [
    ("CAP_BPF", CapabilitySet::BPF),
    ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
    ("CAP_PERFMON", CapabilitySet::PERFMON),
];

/// Names the capabilities that this thread lacks.
pub(crate) fn check() -> Result<(), OpenError> {
    // The kernel refuses to say only for another process.
    let effective = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let missing = missing(effective);
    if missing.is_empty() { Ok(()) } else { Err(OpenError::Capabilities { missing }) }
}

fn missing(effective: CapabilitySet) -> Vec<&'static str> {
    NEEDED.iter().filter(|(_, needed)| !effective.contains(*needed)).map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_one_is_named() {
        let all = CapabilitySet::BPF | CapabilitySet::NET_ADMIN | CapabilitySet::PERFMON;
        assert_eq!(missing(all), Vec::<&str>::new());
        assert_eq!(missing(CapabilitySet::all()), Vec::<&str>::new());
        for (name, bit) in NEEDED {
            assert_eq!(missing(all - bit), vec![name]);
        }
        let text = OpenError::Capabilities { missing: missing(CapabilitySet::BPF) }.to_string();
        assert!(text.contains("lacks CAP_NET_ADMIN and CAP_PERFMON"), "{text}");
    }
}
