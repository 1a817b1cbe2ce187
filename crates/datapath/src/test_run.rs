//! A frame through a program without an interface: `BPF_PROG_TEST_RUN`.

use aya::programs::{TestRun, TestRunOptions};
use cellwall_abi::Direction;
use zerocopy::{Immutable, IntoBytes};

use crate::error::TestRunError;
use crate::programs::{self, NAMES, Programs};

/// Where a frame of a test run is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At {
    /// Interface of the hook; it must exist in this network namespace.
    pub ifindex: u32,
    /// Interface that received the frame; 0: this node made it.
    pub ingress_ifindex: u32,
}

/// Head of `struct __sk_buff`. The kernel refuses whatever it does not take that is not zero.
#[derive(Default, IntoBytes, Immutable)]
#[repr(C)]
struct Context {
    unused: [u32; 9],
    ingress_ifindex: u32,
    ifindex: u32,
}

/// True when the program lets the frame go on. `frame` begins with its Ethernet header.
pub(crate) fn test_run(
    programs: &Programs,
    direction: Direction,
    frame: &[u8],
    at: At,
) -> Result<bool, TestRunError> {
    let context = Context { unused: [0; 9], ingress_ifindex: at.ingress_ifindex, ifindex: at.ifindex };
    let options = TestRunOptions {
        data_in: Some(frame),
        ctx_in: Some(context.as_bytes()),
        ..TestRunOptions::default()
    };
    let refused = |source| TestRunError { program: NAMES[direction as usize], source: Box::new(source) };
    let result = programs::of(programs, direction).program.test_run(options).map_err(refused)?;
    Ok(result.return_value.cast_signed() == -1)
}
