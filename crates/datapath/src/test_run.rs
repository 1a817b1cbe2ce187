//! A frame through a program without an interface: `BPF_PROG_TEST_RUN`.

use aya::programs::{TestRun, TestRunOptions};
use cellwall_abi::Direction;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::error::TestRunError;
use crate::programs::{self, Hook, NAMES, Programs};

/// Where a frame of a test run is seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At {
    /// Interface of the hook; it must exist in this network namespace.
    pub ifindex: u32,
    /// Interface that received the frame; 0: this node made it.
    pub ingress_ifindex: u32,
    /// Mark of the frame.
    pub mark: u32,
}

/// `struct __sk_buff`. The kernel refuses whatever it does not take that is not zero.
#[derive(Clone, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Context {
    head: [u32; 2],
    mark: u32,
    middle: [u32; 6],
    ingress_ifindex: u32,
    ifindex: u32,
    rest: [u32; 37],
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) passes: bool,
    pub(crate) mark: u32,
}

/// Sends a frame through the program of a hook. `frame` begins with its Ethernet header.
pub(crate) fn test_run(programs: &Programs, hook: Hook, frame: &[u8], at: At) -> Result<Ran, TestRunError> {
    let context = Context {
        mark: at.mark,
        ingress_ifindex: at.ingress_ifindex,
        ifindex: at.ifindex,
        ..Context::new_zeroed()
    };
    let mut after = context.clone();
    let options = TestRunOptions {
        data_in: Some(frame),
        ctx_in: Some(context.as_bytes()),
        ctx_out: Some(after.as_mut_bytes()),
        ..TestRunOptions::default()
    };
    let refused = |source| TestRunError { program: NAMES[hook as usize], source: Box::new(source) };
    let result = programs::of(programs, hook).program.test_run(options).map_err(refused)?;
    Ok(Ran { passes: result.return_value.cast_signed() == -1, mark: after.mark })
}

/// The programs without their tables, for another thread: frames go through them while a plan is written.
#[derive(Debug)]
pub struct Runner(pub(crate) Programs);

impl Runner {
    /// As [`crate::Datapath::test_run`].
    pub fn test_run(&self, direction: Direction, frame: &[u8], at: At) -> Result<bool, TestRunError> {
        test_run(&self.0, Hook::of_pod(direction), frame, at).map(|ran| ran.passes)
    }
}
