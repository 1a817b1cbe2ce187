//! What the programs take of the stack where a kernel rounds the frame of each function up to 32 bytes, as 6.1 does: this
//! kernel may round to 16, and take what that one refuses.

use std::collections::{BTreeSet, HashSet};

use aya_obj::Object;
use aya_obj::generated::bpf_insn;

/// `MAX_BPF_STACK` of the kernel, for a whole chain of calls.
const LIMIT: usize = 512;
/// What `check_max_stack_depth` of 6.1 rounds to.
const ROUND: usize = 32;

const FRAME_POINTER: u8 = 10;
const CALL: u8 = 0x85;
const PSEUDO_CALL: u8 = 1;
const LOAD_IMMEDIATE: u8 = 0x18;
const PSEUDO_FUNC: u8 = 4;
const MOVE: u8 = 0xbf;
const ADD_IMMEDIATE: u8 = 0x07;

/// A program with all functions behind it, as the kernel gets it.
struct Code<'a> {
    instructions: &'a [bpf_insn],
    /// Where functions begin.
    starts: BTreeSet<usize>,
}

impl<'a> Code<'a> {
    fn new(instructions: &'a [bpf_insn]) -> Self {
        let called = (0..instructions.len()).filter_map(|at| target(instructions, at));
        Self { instructions, starts: called.chain([0]).collect() }
    }

    fn function(&self, start: usize) -> std::ops::Range<usize> {
        start..self.starts.range(start + 1..).next().copied().unwrap_or(self.instructions.len())
    }

    /// Bytes below the frame pointer that a function uses.
    fn frame(&self, start: usize) -> usize {
        self.function(start).map(|at| below(self.instructions, at)).max().unwrap_or_default()
    }

    /// The bytes of the dearest chain of calls that begins with a function, and their frames.
    fn deepest(&self, start: usize) -> (usize, Vec<usize>) {
        let frame = self.frame(start);
        let callees: BTreeSet<usize> =
            self.function(start).filter_map(|at| target(self.instructions, at)).collect();
        let (below, mut frames) =
            callees.into_iter().map(|callee| self.deepest(callee)).max().unwrap_or_default();
        frames.insert(0, frame);
        (frame.max(1).next_multiple_of(ROUND) + below, frames)
    }
}

/// The function that an instruction calls, or hands to `bpf_loop`.
fn target(instructions: &[bpf_insn], at: usize) -> Option<usize> {
    let instruction = instructions[at];
    let is_call = instruction.code == CALL && instruction.src_reg() == PSEUDO_CALL;
    let is_callback = instruction.code == LOAD_IMMEDIATE && instruction.src_reg() == PSEUDO_FUNC;
    (is_call || is_callback).then(|| at.wrapping_add_signed(1 + instruction.imm as isize))
}

/// How far below the frame pointer an instruction reaches, by itself or with the one before it.
fn below(instructions: &[bpf_insn], at: usize) -> usize {
    let instruction = instructions[at];
    let offset = match instruction.code & 7 {
        // BPF_LDX, and BPF_ST and BPF_STX.
        1 if instruction.src_reg() == FRAME_POINTER => i32::from(instruction.off),
        2 | 3 if instruction.dst_reg() == FRAME_POINTER => i32::from(instruction.off),
        _ if instruction.code == ADD_IMMEDIATE
            && at.checked_sub(1).is_some_and(|before| {
                let before = instructions[before];
                before.code == MOVE
                    && before.src_reg() == FRAME_POINTER
                    && before.dst_reg() == instruction.dst_reg()
            }) =>
        {
            instruction.imm
        }
        _ => 0,
    };
    usize::try_from(-offset).unwrap_or_default()
}

#[test]
fn every_chain_of_calls_fits_where_frames_are_rounded_up() {
    let mut object = Object::parse(crate::programs::OBJECT).expect("the object that is shipped");
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_calls(&sections).expect("its calls");
    assert_eq!(object.programs.len(), 3);
    for (name, program) in &object.programs {
        let function = &object.functions[&program.function_key()];
        let (bytes, frames) = Code::new(&function.instructions).deepest(0);
        println!("{name}: {bytes} bytes, frames {frames:?}");
        assert!(frames.len() > 1, "{name} calls nothing: what is read here is not the program");
        assert!(bytes <= LIMIT, "{name}: {bytes} bytes of {LIMIT} in a chain of calls, frames {frames:?}");
    }
}
