//! What the programs call in the kernel, asked for before they are loaded: the verifier would name a number.

use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported};

use crate::error::OpenError;

/// Each helper, and what to do where there is none. Releases are those of bpf-helpers(7).
const NEEDED: [(BpfHelper, &str, &str); 10] = [
    (BpfHelper::BPF_FUNC_map_lookup_elem, "bpf_map_lookup_elem", ANY),
    (BpfHelper::BPF_FUNC_map_update_elem, "bpf_map_update_elem", ANY),
    (BpfHelper::BPF_FUNC_map_delete_elem, "bpf_map_delete_elem", ANY),
    (BpfHelper::BPF_FUNC_skb_load_bytes, "bpf_skb_load_bytes", ANY),
    (BpfHelper::BPF_FUNC_skb_pull_data, "bpf_skb_pull_data", ANY),
    (BpfHelper::BPF_FUNC_skb_load_bytes_relative, "bpf_skb_load_bytes_relative", ANY),
    (BpfHelper::BPF_FUNC_ringbuf_reserve, "bpf_ringbuf_reserve", "run Linux 5.8 or later"),
    (BpfHelper::BPF_FUNC_ringbuf_submit, "bpf_ringbuf_submit", "run Linux 5.8 or later"),
    (BpfHelper::BPF_FUNC_ktime_get_coarse_ns, "bpf_ktime_get_coarse_ns", "run Linux 5.11 or later"),
    (BpfHelper::BPF_FUNC_loop, "bpf_loop", "run Linux 5.17 or later"),
];
const ANY: &str = "run a kernel with CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_ACT";

/// The first helper that this kernel does not offer to classifiers is the error.
pub(crate) fn check() -> Result<(), OpenError> {
    // A probe that fails says nothing: loading will.
    lacking(|helper| is_helper_supported(ProgramType::SchedClassifier, helper).unwrap_or(true))
}

fn lacking(is_there: impl Fn(BpfHelper) -> bool) -> Result<(), OpenError> {
    match NEEDED.into_iter().find(|(helper, ..)| !is_there(*helper)) {
        None => Ok(()),
        Some((_, feature, remedy)) => Err(OpenError::Kernel { feature, remedy }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use aya_obj::Object;

    use super::*;

    /// A call of a helper, not of a function of the program.
    const CALL_OF_HELPER: (u8, u8) = (0x85, 0);

    #[test]
    fn a_helper_that_is_missing_is_named_with_what_to_do() {
        for (missing, name, remedy) in NEEDED {
            let error = lacking(|helper| helper as u32 != missing as u32).expect_err("it is missing");
            assert_eq!(error.to_string(), format!("the kernel does not offer {name}: {remedy}"));
        }
        assert!(lacking(|_| true).is_ok());
    }

    #[test]
    fn every_helper_that_the_programs_call_is_asked_for() {
        let object = Object::parse(crate::programs::OBJECT).expect("the object that is shipped");
        let instructions = object.functions.values().flat_map(|function| &function.instructions);
        let called: BTreeSet<u32> = instructions
            .filter(|instruction| (instruction.code, instruction.src_reg()) == CALL_OF_HELPER)
            .map(|instruction| u32::try_from(instruction.imm).expect("a number of a helper"))
            .collect();
        assert_eq!(called, NEEDED.map(|(helper, ..)| helper as u32).into());
    }
}
